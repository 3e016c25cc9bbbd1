"""Embedded PostgreSQL and Redis-compatible server, and the supervision of a whole stack on one machine."""
