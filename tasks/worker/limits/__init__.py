"""Time limits of user code, on every pool: `PoolTimeLimit`."""

from tasks.worker.limits.celery_soft import guard, unguard
from tasks.worker.limits.pool import PoolTimeLimit

__all__ = ["PoolTimeLimit", "guard", "unguard"]
