"""The launcher: a real PostgreSQL and a real Valkey from wheels, for a machine that has neither."""
