"""Checkpoints: specifications, files, descriptions, loading of weights and its errors."""
