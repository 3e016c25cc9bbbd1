"""What ships for Prometheus and Grafana asks for metrics that exist, by labels that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.telemetry.metrics import METRICS, Metric
from tests.docs.reference import DOCS

ROOT = DOCS.parent
RULES = ROOT / "docker" / "prometheus" / "rules.yml"
DASHBOARDS = sorted((ROOT / "docker" / "grafana" / "dashboards").glob("*.json"))
#: A name as asked for → its metric.
SERIES: dict[str, Metric] = {name: metric for metric in METRICS.values() for name in metric.series}
#: What Prometheus adds, and what a histogram's buckets have.
ALWAYS = {"instance", "job", "le"}
PROMQL = re.compile(r"```promql\n(.*?)```", re.DOTALL)


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            yield f"{path.name}: {panel['title']}", panel


def expressions() -> Iterator[tuple[str, str]]:
    """Where an expression stands, and it."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for title, panel in panels():
        for target in panel.get("targets", ()):
            yield title, target["expr"]
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if "definition" in variable:
                yield f"{path.name}: ${variable['name']}", variable["definition"]
    for number, example in enumerate(PROMQL.findall((DOCS / "observability.md").read_text(encoding="utf-8"))):
        for line in example.strip().split("\n\n"):
            yield f"observability.md, example {number + 1}", re.sub(r"#.*", "", line)


def names_of(expression: str) -> set[str]:
    return set(re.findall(r"\bparallelizer_\w+", expression))


def test_every_metric_that_is_asked_for_exists() -> None:
    unknown = [(where, sorted(names_of(asked) - set(SERIES))) for where, asked in expressions()]
    assert [each for each in unknown if each[1]] == []
    assert all(names_of(asked) for _, asked in expressions())


def test_every_label_that_is_asked_for_exists() -> None:
    wrong = []
    for where, asked in expressions():
        has = ALWAYS | {label for name in names_of(asked) for label in SERIES[name].labels}
        grouped = {
            part.strip() for group in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", asked) for part in group.split(",")
        }
        for name, selector in re.findall(r"(parallelizer_\w+)\{([^}]*)\}", asked):
            matched = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            if matched - ALWAYS - set(SERIES[name].labels):
                wrong.append((where, name, matched))
        if grouped - has:
            wrong.append((where, asked, grouped - has))
    assert wrong == []


def test_the_dashboard_shows_every_metric() -> None:
    shown = {SERIES[name].name for _, panel in panels() for target in panel.get("targets", ())
             for name in names_of(target["expr"])}  # fmt: skip
    assert {metric.name for metric in METRICS.values()} - shown == set()


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for _, panel in panels()]
    assert len(set(ids)) == len(ids)
    for title, panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, title
        assert at["x"] + at["w"] <= 24, title
        taken |= cells
        assert panel["type"] == "row" or panel["description"], title


def test_alerts_say_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("info", "warning", "critical"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["description"], rule["alert"]
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
            assert label in ALWAYS or any(label in SERIES[name].labels for name in names_of(rule["expr"]))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here (Debian: package prometheus)")
def test_prometheus_itself_understands_all_expressions(tmp_path: Path) -> None:
    """`promtool check rules` reads the rules that ship, and the dashboard's expressions as if they were rules."""
    asked = [
        asked.replace("$__rate_interval", "5m") for _, asked in expressions() if not asked.startswith("label_values")
    ]
    rules = [{"record": f"expression_{number}", "expr": each} for number, each in enumerate(asked)]
    written = tmp_path / "expressions.yml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    promtool = shutil.which("promtool")
    assert promtool is not None
    for path in (RULES, written):
        checked = subprocess.run([promtool, "check", "rules", str(path)], check=False, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
