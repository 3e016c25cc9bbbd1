"""Parts of a worker with real processes."""
