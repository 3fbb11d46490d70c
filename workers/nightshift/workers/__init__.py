"""The Celery workers: each turns one job into results, over models, scoring and stores."""
