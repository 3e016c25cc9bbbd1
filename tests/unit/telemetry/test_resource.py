"""Who sends traces and metrics: one name for the fleet, one for each worker, and what the variables say instead."""

from __future__ import annotations

import pytest

from orchestration.telemetry.resource import make_resource


@pytest.mark.parametrize(
    ("variables", "name", "instance"),
    [
        ({}, "parallelizer", "w1@host"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop", "w1@host"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,service.instance.id=pod-7"}, "shop", "pod-7"),
    ],
)
def test_a_worker_is_named_by_its_node_unless_variables_name_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str, instance: str
) -> None:
    for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    attributes = make_resource("w1@host#6ab1").attributes
    assert (attributes["service.name"], attributes["service.instance.id"]) == (name, instance)


def test_it_is_found_like_any_other_with_its_attributes() -> None:
    one, other = make_resource("w1@host"), make_resource("w1@host")
    assert (one, hash(one)) == (other, hash(other))
    assert one != make_resource("w2@host")
