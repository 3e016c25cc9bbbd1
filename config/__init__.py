"""Settings, Celery configuration and logging. Imports nothing of ours."""

__distribution__ = "celery-parallelizer"
