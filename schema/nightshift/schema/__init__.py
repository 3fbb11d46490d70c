"""The vocabulary of Nightshift: records, job payloads, identity, tables, errors, settings."""
