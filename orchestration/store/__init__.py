"""The record of truth: PostgreSQL. Only here are SQLAlchemy, Alembic and the driver imported."""
