"""The site: settings, the URL table, Celery and the launcher above the apps; problem documents, database and cache plumbing below them."""
