"""The scoring primitive: prompts in groups that share beginnings, label logits at their ends."""

__all__ = [
    "blocks",
    "enhancement",
    "family",
    "lockstep",
    "memory",
    "packed",
    "packing",
    "plain",
    "prompts",
    "reading",
    "text",
    "visual",
]
