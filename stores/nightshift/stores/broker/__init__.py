"""Redis as the broker of Celery: sending doorbells, receiving messages."""
