"""Faults on purpose, with real services and real workers, and an audit of what was promised."""
