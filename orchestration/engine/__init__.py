"""The engine: starts flow sessions, runs branches, settles them, completes. It knows neither Celery nor the CLI."""
