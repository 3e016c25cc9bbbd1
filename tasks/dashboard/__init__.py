"""Pages about workflows, runs, limits and throughput inside Flower. Loaded by `celery -A tasks flower` only."""
