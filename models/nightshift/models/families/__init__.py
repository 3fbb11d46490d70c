"""One small file a model family: foreign names stop here."""

__all__ = ["qwen2_5_vl"]
