"""Who sends traces and metrics, as OpenTelemetry names it: the same for both. Loads the SDK."""

from __future__ import annotations

from typing import Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

SERVICE: Final = "parallelizer"


class _HashedOnce(Resource):
    """Exporters look it up for each span; the SDK's own writes it as JSON each time, a fifth of what a span costs."""

    def __init__(self, made: Resource) -> None:
        super().__init__(made.attributes, made.schema_url)
        self._hash = super().__hash__()

    __eq__ = Resource.__eq__

    def __hash__(self) -> int:
        return self._hash


def make_resource(worker: str) -> Resource:
    """`service.name` and `service.instance.id`: `parallelizer`, and the node name of the worker.

    `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win.

    Args: worker: its name; what follows a `#` tells its restarts apart, and is left out. Empty: nobody said it.
    """
    ours = {"service.name": SERVICE}
    if worker:
        ours["service.instance.id"] = worker.partition("#")[0]
    return _HashedOnce(Resource.create().merge(Resource(dict(ours))).merge(OTELResourceDetector().detect()))
