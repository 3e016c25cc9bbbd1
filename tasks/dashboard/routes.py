"""Which path is whose."""

from __future__ import annotations

from tornado.routing import URLSpec
from tornado.web import url

from tasks.dashboard import limits, runs, static_files, throughput
from tasks.dashboard.handlers import PageHandler
from tasks.dashboard.run import run_routes


def routes(prefix: str) -> list[URLSpec]:
    """All our paths.

    Args: prefix: Flower's `--url_prefix` with a slash before it, or empty.
    """
    base = f"{prefix}/flow"

    def page(path: str, name: str, title: str, script: str) -> URLSpec:
        return url(base + path, PageHandler, {"title": title, "script": script, "tab": name}, name=name)

    return [
        page("", "flow", "Workflows", "runs"),
        *run_routes(base),
        page("/limits", "flow-limits", "Limits", "limits"),
        page("/throughput", "flow-throughput", "Throughput", "throughput"),
        url(rf"{base}/api/runs", runs.RunsApi),
        url(rf"{base}/api/workflows", runs.WorkflowNamesApi),
        url(rf"{base}/api/act", runs.ActApi),
        url(rf"{base}/stream/runs", runs.RunsStream),
        url(rf"{base}/stream/limits", limits.LimitsStream),
        url(rf"{base}/stream/throughput", throughput.ThroughputStream),
        url(rf"{base}/static/[0-9a-f]+/(.+)", static_files.StaticFiles, {"path": str(static_files.FOLDER)}),
    ]
