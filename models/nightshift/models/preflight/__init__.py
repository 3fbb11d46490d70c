"""Checks and counts that need a model's files but none of its weights: planning and doctor."""
