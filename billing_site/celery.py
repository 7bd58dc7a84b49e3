"""The Celery application and its beat schedule: one table, a reason per row."""
