"""How a command gets at Redis and PostgreSQL: the URLs of the settings, the running stack's, or a stack for one run.

Sets REDIS_URL, DATABASE_URL and DATA_DIR in the environment, so that everything imported afterwards (`tasks` above
all) uses the same services.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings, get_settings
from orchestration.errors import ServiceUnreachable
from orchestration.state.client import PATIENCE, is_away
from orchestration.state.live import LiveState
from orchestration.state.patience import Patience
from orchestration.store.pool import Database
from parallelizer.cli.failures import WrongUse
from parallelizer.cli.stack import stack_urls, temporary_stack
from parallelizer.services.reach import redis_answers
from parallelizer.services.record import read_record

#: The command line asks one thing at a time.
POOL_SIZE = 2
#: For who wants to know whether Redis is away: two more tries.
SHORT_PATIENCE = Patience(is_away, repeats=1)


@dataclass(frozen=True, slots=True)
class Services:
    """What commands read from and send to."""

    settings: Settings
    database: Database
    live: LiveState
    #: Folder of the logs of a stack that was started for this command and ends with it, else None.
    own_stack_logs: Path | None


def read_settings(data_dir: Path | None) -> Settings:
    """The settings of this command; from now on also those of everything it imports.

    Raises: WrongSetting: one line per wrong setting.
    """
    if data_dir is not None:
        os.environ["DATA_DIR"] = str(data_dir.absolute())
        get_settings.cache_clear()
    return get_settings()


@contextmanager
def services_for_a_run(settings: Settings) -> Iterator[Services]:
    """The services and workers that are there, or a stack for this one run.

    Raises: ServiceUnreachable: one does not answer. WrongUse: another command's stack is about to end.
    """
    record = read_record(settings.data_dir)
    if record is not None and record.temporary:
        raise WrongUse(
            f"another `parallelizer run` has a stack of its own in {settings.data_dir}, which ends with it; "
            "for several runs at once start `parallelizer up` first, or use another --data-dir"
        )
    urls = stack_urls(settings.data_dir, settings)
    if urls is not None:
        yield _connected(urls, None)
        return
    with temporary_stack(settings) as stack:
        yield _connected((stack.redis_url, stack.database_url), stack.logs)


@contextmanager
def services_for_reading(settings: Settings) -> Iterator[Services]:
    """The services that are there; if none are, those of the data folder without workers, as long as it takes.

    Raises: ServiceUnreachable: there are none, or one does not answer.
    """
    urls = stack_urls(settings.data_dir, settings)
    if urls is not None:
        yield _connected(urls, None)
        return
    if not settings.data_dir.is_dir():
        raise ServiceUnreachable(
            "no services: no stack runs here and there is no data of an earlier one "
            f"in {settings.data_dir}; start `parallelizer up`, or set REDIS_URL and DATABASE_URL"
        )
    with temporary_stack(settings, workers=0) as stack:
        yield _connected((stack.redis_url, stack.database_url), stack.logs)


@contextmanager
def services_for_explaining(settings: Settings) -> Iterator[Services]:
    """As for reading, but one of them may be away: that is part of what is to be explained.

    Raises: ServiceUnreachable: no services are known, or neither answers.
    """
    urls = stack_urls(settings.data_dir, settings)
    if urls is None:
        with services_for_reading(settings) as services:
            yield services
        return
    services = _services(urls, None, SHORT_PATIENCE)
    try:
        redis_answers(urls[0])
    except ServiceUnreachable:
        services.database.check()
    yield services


def _connected(urls: tuple[str, str], own_stack_logs: Path | None) -> Services:
    services = _services(urls, own_stack_logs, PATIENCE)
    redis_answers(urls[0])
    services.database.check()
    return services


def _services(urls: tuple[str, str], own_stack_logs: Path | None, patience: Patience) -> Services:
    os.environ["REDIS_URL"], os.environ["DATABASE_URL"] = urls
    get_settings.cache_clear()
    settings = get_settings()
    database = Database(
        urls[1], pool_size=POOL_SIZE, statement_timeout_seconds=settings.statement_timeout_seconds,
        application_name="parallelizer cli", counts=settings.metrics_enabled,
    )  # fmt: skip
    return Services(settings, database, LiveState(urls[0], settings.namespace, patience), own_stack_logs)
