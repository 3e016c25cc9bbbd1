"""What a log line looks like: its format, tag, ids, fields, level; nothing in it forges another line."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from config.log_fields import COMPONENTS, FIELDS, tag_of
from config.logs import configure_logging, parse_levels
from config.settings import load_settings
from orchestration.telemetry.logs import ActionLogger, Place, at, ids_of_record
from orchestration.vocabulary import NO_ITEM, UnitKind


@dataclass
class Run:
    flow_session_id: str = "5e55"
    day: str = "2026-01-31"
    workflow: str = "orders"
    traceparent: str | None = None

    def now_us(self) -> int:
        return 0


@dataclass(frozen=True)
class Unit:
    name: str
    kind: UnitKind = UnitKind.BRANCH


@dataclass(eq=False)
class Task:
    action: str
    item: int = NO_ITEM
    number: int = 1


@contextmanager
def written(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[StringIO]:
    """What the process writes to standard error with these settings."""
    stream, root = StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", stream)
    levels = {name: logging.getLogger(name).level for _, parts in [parse_levels(settings.get("log_level", ""))]
              for name in parts}  # fmt: skip
    try:
        configure_logging(load_settings(**{"log_format": "json", **settings}), ids_of_record)
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


def lines(stream: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_the_declared_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(traceparent=f"00-{7:032x}-{8:016x}-01")
    with written(monkeypatch) as stream, at(Place(run, Unit("fetch"), Task("fetch", number=2))):
        try:
            int("no")
        except ValueError:
            logging.getLogger("shop").exception("sold %d", 3)
    (line,) = lines(stream)
    assert [field.name for field in FIELDS if field.name in line] == [field.name for field in FIELDS]
    assert set(line) == {field.name for field in FIELDS}
    assert line["event"] == "[ACTION] sold 3"
    assert (line["flow_session_id"], line["workflow_id"], line["branch_id"]) == ("5e55", "orders", "fetch")
    assert (line["task_id"], line["attempt"], line["trace_id"], line["level"]) == ("fetch", 2, f"{7:032x}", "error")
    assert "ValueError: " in line["exception"]


def test_a_console_line_has_tag_ids_and_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    with written(monkeypatch, log_format="console") as stream, at(Place(Run(), Unit("fetch"))):
        logging.getLogger("orchestration.engine.runner").warning("late", extra={"seconds": 4})
    text = stream.getvalue()
    assert "[PARALLELIZER] late" in text
    assert all(part in text for part in ("flow_session_id=5e55", "workflow_id=orders", "branch_id=fetch", "seconds=4"))


def test_a_console_line_shows_no_locals_of_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with written(monkeypatch, log_format="console") as stream:
        hidden = "a" + "local-canary"[1:]
        try:
            int("no")
        except ValueError:
            logging.getLogger("shop").exception("failed")
    assert "ValueError: " in stream.getvalue()
    assert hidden not in stream.getvalue()


@pytest.mark.parametrize(
    ("logger", "tag"),
    [
        ("orchestration.engine.processor", "PARALLELIZER"),
        ("orchestration.engine.branch", "BRANCH_PROCESSOR"),
        ("orchestration.engine.task", "BRANCH_PROCESSOR"),
        ("orchestration.plan.compile", "PROCESSOR_UTILS"),
        ("orchestration.channel.updater", "STATUS_CHANNEL"),
        ("orchestration.action", "ACTION"),
        ("tasks.worker.stuck", "WORKER"),
        ("tasks.upkeep", "UPKEEP"),
        ("celery.app.trace", "CELERY"),
        ("shop", None),
    ],
)
def test_the_tag_is_that_of_the_component(logger: str, tag: str | None) -> None:
    assert tag_of(logger) == tag


def test_each_component_has_a_name_a_tag_and_loggers_of_its_own() -> None:
    loggers = [logger for component in COMPONENTS for logger in component.loggers]
    assert len(set(loggers)) == len(loggers)
    assert len({component.name for component in COMPONENTS}) == len({c.tag for c in COMPONENTS}) == len(COMPONENTS)


def test_debug_of_one_component_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with written(monkeypatch, log_level="info,branches=debug") as stream:
        logging.getLogger("orchestration.engine.branch").debug("seen")
        logging.getLogger("orchestration.engine.runner").debug("unseen")
    assert [line["event"] for line in lines(stream)] == ["[BRANCH_PROCESSOR] seen"]


def test_levels_of_a_component_reach_all_its_loggers() -> None:
    default, levels = parse_levels("warning, processor=debug,upkeep=error,shop.basket=info")
    assert default == logging.WARNING
    assert levels["orchestration"] == logging.DEBUG
    assert levels["tasks.sender"] == levels["tasks.upkeep"] == logging.ERROR
    assert levels["shop.basket"] == logging.INFO


def test_a_wrong_level_is_named() -> None:
    with pytest.raises(ValueError, match="'loud' is no level"):
        parse_levels("info,processor=loud")


def test_data_forges_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("json", "console"):
        with written(monkeypatch, log_format=form) as stream:
            logging.getLogger("shop").info(
                'a\n{"event": 1}\x1b[31m\u2028', extra={"note": "b\r\nc", "deep": ["\x9b31m", {"\x85": "\x1b"}]}
            )
        assert stream.getvalue().count("\n") == 1
        assert not set(stream.getvalue()) & set("\x1b\r\x9b\x85\u2028")
        if form == "json":
            assert lines(stream)[0]["deep"] == ["\x9b31m", {"\x85": "\x1b"}]


def test_what_a_call_brings_along_does_not_replace_ids_or_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with written(monkeypatch) as stream, at(Place(Run(), Unit("fetch"), Task("fetch"))):
        logging.getLogger("shop").info("sold", extra={"event": "x", "level": "y", "workflow_id": "other", "sku": [1]})
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["sku"]) == ("[ACTION] sold", "info", [1])
    assert line["workflow_id"] == "other"  # an id may be brought along: of a line about another run


def test_a_call_with_wrong_arguments_is_shown_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with written(monkeypatch) as stream:
        logging.getLogger("shop").info("sold %d", "three")
    assert "three" in lines(stream)[0]["event"]


def test_an_item_is_a_branch_and_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    with written(monkeypatch) as stream, at(Place(Run(), Unit("ship", UnitKind.CHUNK), Task("ship", 17))):
        logging.getLogger("shop").info("sent")
    assert (lines(stream)[0]["branch_id"], lines(stream)[0]["task_id"]) == ("ship:17", "ship:17")


def test_the_trace_is_that_of_the_current_span(monkeypatch: pytest.MonkeyPatch) -> None:
    span = NonRecordingSpan(SpanContext(9, 1, is_remote=False, trace_flags=TraceFlags(1)))
    run = Run(traceparent=f"00-{7:032x}-{8:016x}-01")
    with written(monkeypatch) as stream, at(Place(run)), trace.use_span(span):
        logging.getLogger("tasks").info("here")
    assert lines(stream)[0]["trace_id"] == f"{9:032x}"


def test_asyncio_tasks_and_their_threads_know_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("shop")

    async def beside(number: int) -> None:
        with at(Place(Run(), Unit(f"b{number}"), Task(f"b{number}"))):
            await asyncio.sleep(0)
            await asyncio.gather(asyncio.to_thread(log.info, "%d", number), asyncio.sleep(0))

    async def all_of_them() -> None:
        await asyncio.gather(*(beside(number) for number in range(5)))

    with written(monkeypatch) as stream:
        asyncio.run(all_of_them())
    assert {(line["event"], line["task_id"]) for line in lines(stream)} == {
        (f"[ACTION] {number}", f"b{number}") for number in range(5)
    }


def test_the_logger_of_an_action_knows_its_task_in_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = ActionLogger(logging.getLogger("orchestration.action"), (Place(Run(), Unit("fetch")), Task("fetch")))
    with written(monkeypatch) as stream:
        thread = threading.Thread(target=lambda: logger.info("far away", extra={"sku": 3}))
        thread.start()
        thread.join()
    (line,) = lines(stream)
    assert (line["event"], line["task_id"], line["sku"]) == ("[ACTION] far away", "fetch", 3)


def test_what_is_over_leaves_no_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    with written(monkeypatch) as stream:
        with at(Place(Run())):
            pass
        logging.getLogger("tasks").info("after")
    assert "flow_session_id" not in lines(stream)[0]
