"""What the pages read from, and the threads that do it: Flower's loop must not wait for anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import redis

from config.masking import Masker, secrets_of
from config.settings import Settings
from orchestration.errors import ServiceUnreachable
from orchestration.state.client import is_away, place
from orchestration.state.live import LiveState
from orchestration.state.patience import Patience
from orchestration.store.pool import Database

#: Reads at a time; more wait for a thread.
THREADS = 4
#: A page that takes longer says so, instead of keeping PostgreSQL busy for somebody who has left.
STATEMENT_SECONDS = 15.0

P = ParamSpec("P")
T = TypeVar("T")


class Reads:
    """PostgreSQL and live state, for Flower's process."""

    def __init__(self, settings: Settings) -> None:
        assert settings.redis_url is not None
        assert settings.database_url is not None
        self.settings = settings
        #: As in logs: for what of users is shown and was not made to be.
        self.masker = Masker(secrets_of(settings))
        self.database = Database(
            settings.database_url, pool_size=THREADS + 1, application_name="parallelizer flower",
            statement_timeout_seconds=min(STATEMENT_SECONDS, settings.statement_timeout_seconds),
            counts=settings.metrics_enabled,
        )  # fmt: skip
        self.live = LiveState(settings.redis_url, settings.namespace, Patience(is_away, repeats=0))
        self._redis_place = place(settings.redis_url)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="pages")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="large")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a function that waits, from another thread.

        Raises: whatever it does; ServiceUnreachable above all, also when Redis is away.
        """
        return await self._run_in(self._threads, function, *args, **kwargs)

    async def run_large(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same of a function that may take tens of megabytes: one after another, in a thread of their own.

        It is no slower, since they compute for most of their time; and memory that C frees is kept for its thread.
        """
        return await self._run_in(self._large, function, *args, **kwargs)

    async def _run_in(
        self, threads: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def answer() -> T:
            try:
                return function(*args, **kwargs)
            except redis.exceptions.RedisError as error:
                if not is_away(error):
                    raise
                raise ServiceUnreachable(
                    f"Redis at {self._redis_place} does not answer: {error}; see whether it is up, then try again"
                ) from None

        return await asyncio.get_running_loop().run_in_executor(threads, answer)

    def close(self) -> None:
        """What waits for a thread is dropped, connections are closed."""
        for threads in (self._threads, self._large):
            threads.shutdown(wait=False, cancel_futures=True)
        self.database.close()
        self.live.close()
