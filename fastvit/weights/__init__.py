"""Weights: files, names and catalogue."""
