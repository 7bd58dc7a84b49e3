"""Celery doors: an id, one call."""
