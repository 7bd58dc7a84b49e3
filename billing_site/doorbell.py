"""Rings Celery by task name after commit, and never makes a stored row wait for a broker."""
