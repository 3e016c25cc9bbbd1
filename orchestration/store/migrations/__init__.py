"""Alembic migrations, found by package name so that a wheel has them."""
