"""Around the engine, for operators and developers: command line, embedded services, built-in actions."""

__distribution__ = "celery-parallelizer"
__version__ = "0.1.0"
