"""What runs inside a Celery worker beside the tasks: its name, time limits, request hooks, the upkeep process."""
