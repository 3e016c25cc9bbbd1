"""Metrics at their endpoint: what is declared is shown, it says what is recorded, and a service away costs its own."""

from __future__ import annotations

import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from orchestration.channel.spool import Spool
from orchestration.reports import metrics as reports
from orchestration.reports.metrics import MetricsReader
from orchestration.state.live import LiveState
from orchestration.state.patience import Patience
from orchestration.state.reading import LiveReading
from orchestration.state.stream import StatusStream
from orchestration.store.pool import Database
from orchestration.store.totals import fold_changes
from orchestration.telemetry.metrics import METRICS, Source
from orchestration.telemetry.metrics_memory import WorkerCounters, counters
from tasks.metrics.endpoint import PORTS, Endpoint
from tests.support.scrapes import Scrape, counted, recorded, scrape
from tests.support.stepping import SteppingEngine

NOOP = {"uses": "core.noop"}
MIXED = {
    "name": "mixed",
    "actions": {
        "first": NOOP,
        "each": {**NOOP, "needs": ["first"], "for_each": {"range": 30}},
        "fails": {"uses": "core.fail", "needs": ["first"], "with": {"message": "no"}, "continue_on_failure": True},
        "skipped": {**NOOP, "needs": ["first"], "if": "false"},
        "last": {**NOOP, "needs": ["each", "fails"], "trigger_rule": "all_done"},
    },
}


@pytest.fixture
def live(engine: SteppingEngine) -> LiveState:
    return engine.live


@pytest.fixture
def engine(redis_url: str, database_url: str, namespace: str) -> Iterator[SteppingEngine]:
    stepping = SteppingEngine(redis_url, database_url, namespace)
    yield stepping
    stepping.close()


@contextmanager
def endpoint(
    engine: SteppingEngine, folder: Path, *, redis_url: str | None = None, database_url: str | None = None,
    most_names: int = 200, memory: WorkerCounters = counters,
) -> Iterator[Endpoint]:  # fmt: skip
    """What a worker would show of this engine's fleet; other services than its own may be away."""
    settings = engine.settings
    redis_url, database_url = redis_url or settings.redis_url, database_url or settings.database_url
    assert redis_url is not None
    assert database_url is not None
    with (
        closing(LiveReading(redis_url, settings.namespace, Patience(lambda _: False))) as live,
        closing(StatusStream(redis_url, settings.namespace)) as stream,
        closing(Database(database_url, pool_size=1)) as database,
    ):
        reader = MetricsReader(live, stream, database, Spool(folder, 1_000_000), memory, 3, most_names)
        with closing(Endpoint(reader, "127.0.0.1", 0)) as shown:
            yield shown


def scraped(engine: SteppingEngine, folder: Path, **options: Any) -> Scrape:
    with endpoint(engine, folder, **options) as shown:
        return scrape(shown.url)


def test_what_is_scraped_is_what_is_recorded(engine: SteppingEngine, tmp_path: Path) -> None:
    for _ in range(3):
        engine.run({**MIXED, "name": "thrice"})
    told = scraped(engine, tmp_path)
    assert counted(told) == recorded(engine.database.fetch)
    assert told.get("workflow_duration_seconds_count", workflow="thrice") == 3
    assert told.get("workflow_branches_sum", workflow="thrice") == 3 * (30 + 4)
    (fails,) = told.by("failures_total", ["error"]).items()
    assert fails[1] >= 3
    assert told.get("branch_wait_seconds_count", workflow="thrice") == 3 * 4  # the for_each waits as its items
    assert told.get("task_duration_seconds_count", workflow="thrice", action="each") == 3 * 30
    assert told.get("service_up", service="redis") == told.get("service_up", service="postgresql") == 1


def test_all_that_is_shown_is_declared_and_all_that_is_declared_is_shown(
    engine: SteppingEngine, live: LiveState, tmp_path: Path
) -> None:
    engine.run(MIXED)
    live.set_limit("global", 5)
    live.client.hset(live.space.key("repairs"), mapping={"runner": 1, "lease": 2})
    # ends that were taken back are counted when something was lost
    fold_changes(engine.database)
    engine.database.execute(
        "INSERT INTO metric_totals SELECT measure || '_undone', workflow, action, status, -1, 1, 0, now()"
        " FROM metric_totals WHERE measure IN ('task', 'item', 'branch') ON CONFLICT DO NOTHING"
    )
    engine.database.execute(
        "INSERT INTO metric_totals SELECT 'task_retries', workflow, action, '', -1, 1, 0, now()"
        " FROM metric_totals WHERE measure = 'task' ON CONFLICT DO NOTHING"
    )
    told = scraped(engine, tmp_path)
    declared = {name: metric for metric in METRICS.values() for name in metric.series}
    assert {name for name, _ in told.series} == set(declared)
    for name, labels in told.series:
        assert {label for label, _ in labels} - {"le"} == set(declared[name].labels), name
    engine.database.execute("DELETE FROM metric_totals WHERE measure LIKE '%%undone' OR measure = 'task_retries'", ())


def test_openmetrics_is_understood_too_and_other_paths_are_told(engine: SteppingEngine, tmp_path: Path) -> None:
    with endpoint(engine, tmp_path) as shown:
        request = urllib.request.Request(shown.url, headers={"Accept": "application/openmetrics-text;version=1.0.0"})
        with urllib.request.urlopen(request) as answer:
            families = list(parse_openmetrics(answer.read().decode()))
        assert "parallelizer_workers" in {family.name for family in families}
        fleet, worker = (scrape(f"{shown.url}/{part}").series for part in ("fleet", "worker"))
        assert not {name for name, _ in fleet} & {name for name, _ in worker}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(shown.url.removesuffix("/metrics"))


def test_workers_on_one_host_take_ports_one_after_another(engine: SteppingEngine, tmp_path: Path) -> None:
    with endpoint(engine, tmp_path) as first:
        port = urlsplit(first.url).port
        assert port is not None
        with closing(Endpoint(first.reader, "127.0.0.1", port)) as second:
            other = urlsplit(second.url).port
            assert other is not None
            assert port < other < port + PORTS
            assert scrape(second.url).get("worker_slots") == 3


def test_names_beyond_the_bound_are_one_and_nothing_is_lost(engine: SteppingEngine, tmp_path: Path) -> None:
    for number in range(4):
        engine.run({"name": f"many-{number}", "actions": {f"a{number}": NOOP}})
    with endpoint(engine, tmp_path, most_names=2) as shown:
        told = scrape(shown.url)
    by_workflow = told.by("workflows_total", ["workflow"])
    assert len(by_workflow) == 3
    assert by_workflow["other",] > 0
    assert by_workflow.total() == engine.database.fetch("SELECT count(*) FROM flow_sessions")[0][0]
    assert (
        len(told.by("tasks_total", ["workflow", "action"])) <= 2 + 2 + 1
    )  # what is shown, the rest of each workflow, the rest


def test_limits_and_who_waits_at_them(engine: SteppingEngine, live: LiveState, tmp_path: Path) -> None:
    live.set_limit("workflow:mixed", 2)
    seen: list[Scrape] = []
    engine.run(MIXED, alone=0, check=lambda context: seen.append(scraped(engine, tmp_path)) if not seen else None)
    (told,) = seen
    limit = {"level": "workflow", "workflow": "mixed"}
    assert told.get("permits_limit", **limit) == 2
    held = told.get("permits_held", **limit)
    assert held is not None
    assert told.get("permits_available", **limit) == 2 - held
    assert told.get("sessions", status="running") == 1
    assert told.get("slots", queue="branches") == 1


@pytest.mark.parametrize("away", ["redis", "postgresql"])
def test_a_service_that_is_away_costs_its_own_metrics_only(
    engine: SteppingEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    monkeypatch.setattr(reports, "WAIT_SECONDS", 1.0)
    engine.run(MIXED)
    nowhere: dict[str, Any] = {"redis": {"redis_url": "redis://127.0.0.1:1/0"}, "postgresql": {
        "database_url": "postgresql://nobody@127.0.0.1:1/nothing"}}[away]  # fmt: skip
    told = scraped(engine, tmp_path, **nowhere)
    other = {"redis": "postgresql", "postgresql": "redis"}[away]
    assert (told.get("service_up", service=away), told.get("service_up", service=other)) == (0, 1)
    missing = Source.LIVE if away == "redis" else Source.RECORD
    shown = {name for name, _ in told.series}
    assert not shown & {name for metric in METRICS.values() if metric.source is missing for name in metric.series}
    assert shown & {name for metric in METRICS.values() if metric.source is not missing for name in metric.series}


def test_the_same_is_sent_to_an_otlp_receiver(
    engine: SteppingEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.metrics.otlp import OtlpSender  # noqa: PLC0415 - as the product does: only where it is wanted

    engine.run(MIXED)
    with receiver() as (url, received), endpoint(engine, tmp_path) as shown:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", url)
        told = scrape(shown.url)
        sender = OtlpSender(shown.reader, "worker-1@here")
        sender.start()
        sender.close()
    (request,) = received
    (resource,) = request.resource_metrics
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert attributes["service.name"] == "parallelizer"
    assert attributes["service.instance.id"] == "worker-1@here"
    sent = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    shown_names = {name for name, _ in told.series}
    assert set(sent) == {
        metric.name.removesuffix("_total") for metric in METRICS.values() if shown_names & set(metric.series)
    }
    points = {
        tuple((each.key, each.value.string_value) for each in point.attributes): point.as_double
        for point in sent["parallelizer_workflows"].sum.data_points
    }
    assert points == {
        (("workflow", workflow), ("status", status)): count
        for (workflow, status), count in told.by("workflows_total", ["workflow", "status"]).items()
    }
    (durations,) = [
        point for point in sent["parallelizer_workflow_duration_seconds"].histogram.data_points
        if point.attributes[0].value.string_value == "mixed"
    ]  # fmt: skip
    assert durations.count == sum(durations.bucket_counts)
    assert durations.count == told.get("workflow_duration_seconds_count", workflow="mixed")
    assert len(durations.bucket_counts) == len(durations.explicit_bounds) + 1


@contextmanager
def receiver() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    """A receiver of OTLP over HTTP: where it is, and what it was sent."""
    received: list[ExportMetricsServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportMetricsServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(request)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/metrics", received
        server.shutdown()
        thread.join()
