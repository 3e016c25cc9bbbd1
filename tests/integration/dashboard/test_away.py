"""A service that is away is said so, in words, and Flower goes on."""

from __future__ import annotations

import pytest

from tests.support.fleet import Fleet
from tests.support.flower import running_flower


@pytest.mark.parametrize(
    ("service", "url"),
    [
        ("PostgreSQL", {"DATABASE_URL": "postgresql://somebody:hidden@127.0.0.1:1/nothing"}),
        ("Redis", {"REDIS_URL": "redis://:hidden@127.0.0.1:1/0"}),
    ],
)
def test_a_service_that_is_away_is_named_without_its_password(service: str, url: dict[str, str], fleet: Fleet) -> None:
    # the broker is there: without it Flower itself waits
    fleet.broker_url = fleet.broker_url or fleet.redis_url
    with running_flower(fleet, "basic", **url) as flower:
        client = flower.client()
        assert client.get("/flow").status_code == 200
        path = "/flow/stream/throughput"
        trouble = flower.first_event(client, path, "trouble")["message"]
        assert service in trouble
        assert "127.0.0.1:1" in trouble
        assert "hidden" not in trouble
        if service == "PostgreSQL":
            answer = client.get("/flow/api/runs")
            assert answer.status_code == 503
            assert service in answer.json()["error"]
        assert "hidden" not in flower.log
        assert "Traceback" not in flower.log
