"""Embedders, the scoring engine and the methods built on it: the one room that knows torch.

Importing this package loads no library: take `describe` to learn a model's fingerprint, `load` to
get the model.
"""

__all__ = ["cache", "content", "describe", "embedder", "load", "scorer", "spec"]
