"""Scorers: a method bound to an engine, for pairs and for lists."""
