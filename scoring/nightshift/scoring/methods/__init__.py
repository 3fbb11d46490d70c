"""How pairs are asked about and ordered: one module a paper, in its own terms."""

__all__ = ["freeret", "indexmllm", "method", "registry", "retllm"]
