"""Token budget, caches, counters and compilation of the engine."""
