"""Stored visual tokens: sets in Postgres, shards in files."""
