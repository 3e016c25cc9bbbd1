"""The HTTP endpoint: `/metrics` has all, `/metrics/fleet` what every worker tells alike, `/metrics/worker` the rest.

In the format of Prometheus or OpenMetrics, as the one who asks prefers. Nothing can be changed here, and nothing is
told but numbers and names of workflows, actions and queues.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from itertools import accumulate
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from orchestration.reports.metrics import Family, MetricsReader
from orchestration.telemetry.metrics import Source, Type

_log = logging.getLogger(__name__)
#: Workers on one host share a configuration: each takes the first of so many ports that is free.
PORTS: Final = 32
#: A client that says nothing for so long is left, seconds.
SILENCE_SECONDS: Final = 10.0
PATHS: Final = {
    "/metrics": tuple(Source),
    "/metrics/fleet": (Source.RECORD, Source.LIVE),
    "/metrics/worker": (Source.WORKER,),
}
_App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Endpoint:
    """Serves the metrics of one worker in a thread of its own.

    Args: port: the first to try; 0: any that is free.
    Raises: OSError: none of them is free, or there is no such address here.
    """

    def __init__(self, reader: MetricsReader, address: str, port: int) -> None:
        self.reader = reader
        self._apps: dict[str, _App] = {}
        for path, sources in PATHS.items():
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Collector(reader, sources))
            self._apps[path] = make_wsgi_app(registry)
        self._server = _listen(address, port)
        self._server.set_app(self._answer)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        host = self._server.server_name
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        app = self._apps.get(environ.get("PATH_INFO", "").rstrip("/"))
        if app is None:
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"there are: {' '.join(PATHS)}\n".encode()]
        return app(environ, start_response)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # not the base class's, which asks the name service for the host's name
        super(WSGIServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = 10  # socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes are not worth a line each."""


def _listen(address: str, port: int) -> _Server:
    kind = _Server6 if ":" in address else _Server
    last = OSError("no port")
    for tried in range(port, min(port + PORTS, 65536)) if port else (0,):
        try:
            return kind((address, tried), _Handler)
        except OSError as error:
            last = error
    raise last


class _Collector(Collector):
    def __init__(self, reader: MetricsReader, sources: Iterable[Source]) -> None:
        self._reader, self._sources = reader, tuple(sources)

    def collect(self) -> Iterable[Metric]:
        return map(shown, self._reader.read(self._sources))


def shown(family: Family) -> Metric:
    """A metric and its values as Prometheus's client has them."""
    metric = family.metric
    labels = list(metric.labels)
    if metric.type is Type.HISTOGRAM:
        assert metric.bounds is not None
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        bounds = [floatToGoString(bound) for bound in (*metric.bounds.shown, float("inf"))]
        for values, spread in family.spreads.items():
            buckets = list(zip(bounds, accumulate(spread.counts), strict=True))
            histogram.add_metric(list(values), buckets=buckets, sum_value=spread.total)
        return histogram
    if metric.type is Type.SUMMARY:
        summary = SummaryMetricFamily(metric.name, metric.help, labels=labels)
        for values, spread in family.spreads.items():
            summary.add_metric(list(values), spread.counts[0], spread.total)
        return summary
    kind = CounterMetricFamily if metric.type is Type.COUNTER else GaugeMetricFamily
    plain = kind(metric.name, metric.help, labels=labels)
    for values, number in family.numbers.items():
        plain.add_metric(list(values), number)
    return plain
