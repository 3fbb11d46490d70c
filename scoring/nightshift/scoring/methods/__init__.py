"""The published methods: prompts and ranking rules, one module for each paper."""

__all__ = ["freeret", "indexmllm", "method", "registry", "retllm"]
