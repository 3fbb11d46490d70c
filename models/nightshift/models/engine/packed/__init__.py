"""The packed engine: prompts that share beginnings, in one batch without padding."""
