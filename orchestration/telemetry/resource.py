"""Who sends traces and metrics, as OpenTelemetry names it: the same for both. Loads the SDK."""

from __future__ import annotations

from typing import Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

SERVICE: Final = "parallelizer"


def make_resource(worker: str) -> Resource:
    """`service.name` and `service.instance.id`: `parallelizer`, and the node name of the worker.

    `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win.

    Args: worker: its name; what follows a `#` tells its restarts apart, and is left out. Empty: nobody said it.
    """
    ours = {"service.name": SERVICE}
    if worker:
        ours["service.instance.id"] = worker.partition("#")[0]
    return Resource.create().merge(Resource(dict(ours))).merge(OTELResourceDetector().detect())
