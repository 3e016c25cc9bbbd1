"""From the status stream in Redis to the tables in PostgreSQL."""
