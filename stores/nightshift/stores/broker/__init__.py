"""Redis as the broker of Celery: doorbells out, messages in."""
