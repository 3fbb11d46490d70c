"""Postgres, Redis, Milvus Lite, dispatcher and workers of one data directory, run detached."""
