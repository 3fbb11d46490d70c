"""Runs and their jobs in Postgres: claims, retries, receipts, counters, workers."""
