"""A model and labelled images -> how often, and how surely, it is right."""
