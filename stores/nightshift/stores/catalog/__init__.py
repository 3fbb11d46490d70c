"""Catalogues and query sets in Postgres: items, contents, imports, judgements."""
