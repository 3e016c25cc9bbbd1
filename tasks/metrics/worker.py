"""The metrics of one worker: what reads them, and what shows them."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from config.settings import Settings
from orchestration.channel.spool import Spool
from orchestration.reports.metrics import MetricsReader
from orchestration.state.client import is_away
from orchestration.state.patience import Patience
from orchestration.state.reading import LiveReading
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from orchestration.telemetry.metrics_memory import counters
from tasks.metrics.endpoint import PORTS, Endpoint

_log = logging.getLogger(__name__)
#: A service that does not answer is said to be away; its next answer is for the next scrape.
_NO_PATIENCE = Patience(is_away, repeats=0)
#: A sum over the totals takes some ms.
STATEMENT_SECONDS = 5.0


class WorkerMetrics:
    """Shows the metrics of one worker in threads of its own, until it is closed.

    Args: slots: of this worker. by_otlp: sends them too. A port that can't be had is logged.
    """

    def __init__(self, settings: Settings, worker: str, slots: int, *, by_otlp: bool) -> None:
        self._open = ExitStack()
        reader = self._reader(settings, slots)
        if settings.metrics_port is not None:
            self._serve(reader, settings.metrics_address, settings.metrics_port)
        if by_otlp:
            from tasks.metrics.otlp import OtlpSender  # noqa: PLC0415 - 20 MB that few need

            sender = OtlpSender(reader, worker)
            sender.start()
            self._open.callback(sender.close)

    def close(self) -> None:
        """Show them no more; what is sent is sent once more before."""
        self._open.close()

    def _reader(self, settings: Settings, slots: int) -> MetricsReader:
        assert settings.redis_url is not None
        assert settings.database_url is not None
        # connections of their own: what waits here keeps no duty of the process waiting
        live = LiveReading(settings.redis_url, settings.namespace, _NO_PATIENCE)
        stream = StatusStream(settings.redis_url, settings.namespace)
        database = Database(
            settings.database_url, pool_size=1, statement_timeout_seconds=STATEMENT_SECONDS,
            application_name="parallelizer-metrics",
        )  # fmt: skip
        for each in (live, stream, database):
            self._open.callback(each.close)
        return MetricsReader(
            live, stream, database, Spool(settings.spool_folder, settings.spool_max_bytes), counters, slots,
            settings.metrics_max_names,
        )  # fmt: skip

    def _serve(self, reader: MetricsReader, address: str, port: int) -> None:
        try:
            endpoint = Endpoint(reader, address, port)
        except OSError as error:
            _log.error(
                "no metrics at METRICS_ADDRESS=%s, METRICS_PORT=%d and the %d ports behind it: %s",
                address, port, PORTS - 1, error,
            )  # fmt: skip
            return
        self._open.callback(endpoint.close)
        _log.info("metrics are at %s", endpoint.url)
