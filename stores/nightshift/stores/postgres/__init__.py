"""Postgres: the connection pool, named leases with fencing tokens, election of a leader."""
