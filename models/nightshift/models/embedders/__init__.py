"""Dual encoders: one file a library, one rule for mixing what they give."""

__all__ = ["dual_encoder", "hf", "open_clip"]
