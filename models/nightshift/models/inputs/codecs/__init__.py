"""Codecs of visual tokens: reduce, then quantise; names and sizes are in `scoring.codecs`."""

__all__ = ["codec", "product", "quantise", "records", "reduce", "tokens"]
