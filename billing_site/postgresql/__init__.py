"""Django's PostgreSQL backend, with one adapter of our own (`base`)."""
