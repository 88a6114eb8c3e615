"""The reparameterized model, run fast here (engines) or written for other runtimes (exporters)."""
