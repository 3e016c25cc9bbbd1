"""Cut cables: hosts that do not reach Redis, PostgreSQL or either, for less and more than a lease, under load."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator

import pytest

from tests.chaos.audit import executions
from tests.chaos.campaign import Report, break_things
from tests.chaos.faults import Inject
from tests.chaos.network import Takeover, cut, fault, lose_packets, takeover
from tests.chaos.stack import ChaosStack, chaos_stack
from tests.chaos.workload import kinds, publish
from tests.support import hosts

LEASE_SECONDS = 8
#: Less and more than a lease. A renewal is due every third of it, and TCP sends again what was lost after up to twice
#: the time of the cut.
SHORT, LONG = 2.0, 17.0
A_SECOND = 8.0


@pytest.fixture(scope="module")
def stack() -> Iterator[ChaosStack]:
    """Two of the workers are on hosts of their own, the third is where the servers are."""
    hosts.require()
    with chaos_stack() as started, hosts.own_hosts(2, [*started.ports.values()]) as found:
        started.settings["LEASE_SECONDS"] = str(LEASE_SECONDS)
        started.hosts.update(enumerate(found))
        publish(started.database_url, kinds())
        started.start_workers()
        yield started
        started.stop_workers()


def try_fault(stack: ChaosStack, name: str, inject: Inject, seconds: float) -> Report:
    """It comes once, while work goes on."""
    report = break_things(stack, zlib.crc32(name.encode()), seconds, A_SECOND, [fault(name, inject)], most=1)
    assert report.faults, name
    assert report.findings.holds, f"{name}\n{report.text()}"
    return report


def taken_over(stack: ChaosStack, report: Report) -> Takeover:
    (cut_off,) = report.faults
    found = takeover(executions(stack.journal), cut_off, LEASE_SECONDS)
    sys.stdout.write(f"{found}\n")
    assert found.begun_late == 0, f"it went on claiming: {found}"
    return found


@pytest.mark.parametrize("servers", [("redis",), ("redis", "postgres")], ids=" and ".join)
def test_a_host_that_is_cut_off_for_longer_than_its_lease_is_taken_over_and_fenced(
    stack: ChaosStack, servers: tuple[str, ...]
) -> None:
    report = try_fault(stack, " and ".join(servers), cut(*servers, seconds=LONG, loses=True), 10.0)
    found = taken_over(stack, report)
    assert all(seconds <= LEASE_SECONDS + 5 for seconds in found.after), found


def test_a_host_that_is_cut_off_for_less_than_its_lease_does_nothing_again(stack: ChaosStack) -> None:
    report = try_fault(stack, "short", cut("redis", "postgres", seconds=SHORT, loses=False), 8.0)
    assert report.findings.again == 0, report.text()


def test_a_host_that_does_not_reach_postgresql_goes_on_with_open_sessions(stack: ChaosStack) -> None:
    report = try_fault(stack, "postgres", cut("postgres", seconds=LONG, loses=False), 10.0)
    assert report.findings.again == 0, report.text()


def test_connections_that_are_refused_are_as_good_as_cut_ones(stack: ChaosStack) -> None:
    inject = cut("redis", "postgres", seconds=SHORT, loses=False, resets=True)
    report = try_fault(stack, "reset", inject, 8.0)
    assert report.findings.again == 0, report.text()


def test_with_three_packets_in_ten_lost_work_is_slower_and_right(stack: ChaosStack) -> None:
    report = try_fault(stack, "loss", lose_packets(0.3, 10.0), 10.0)
    (loss,) = report.faults
    starts = [each.started for each in executions(stack.journal)]
    during = sum(loss.began < start < loss.over for start in starts) / (loss.over - loss.began)
    sys.stdout.write(f"{during:.1f} executions a second with {A_SECOND:g} runs sent a second\n")
    assert during > 0


def test_a_host_whose_network_never_comes_back_is_taken_over(stack: ChaosStack) -> None:
    report = try_fault(stack, "for ever", cut("redis", "postgres", seconds=LONG + 6, loses=True), 10.0)
    found = taken_over(stack, report)
    assert all(seconds <= LEASE_SECONDS + 5 for seconds in found.after), found
