"""What every package may use, and nothing of which knows what a model is."""
