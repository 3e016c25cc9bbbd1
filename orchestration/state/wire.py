"""How scripts write units, claims, settlements and publications, translated both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestration.state.records import ItemProgress, LiveClaim, Overdue, Repair, Stopped
from orchestration.state.rows import encode_rows
from orchestration.state.scripts import Argument
from orchestration.vocabulary import Claim, ItemCounts, JoinCounts, Publication, Settlement, UnitKind


def item_of(member: bytes) -> tuple[str, int, int, int]:
    """Of a unit that waits: a chunk that has been tried is one item."""
    unit, attempt, _, retry = member.decode().split("|")[:4]
    action, _, start = unit[2:].rpartition(":")
    return action, int(start), int(attempt), int(retry)


def overdue_of(texts: Sequence[str]) -> Overdue:
    session, version, day, queue, unit, value, info, waits_for = texts
    return Overdue(session, version, day, queue, claim_of(unit, value, info), waits_for)


def stopped_of(text: bytes) -> Stopped:
    return Stopped(*text.decode().split(" ", 2))


def paused_reasons(text: bytes | None) -> frozenset[str]:
    return frozenset(word.decode() for word in (text or b"").split(b",") if word)


def lives_in(worker: str, process: int) -> str:
    """How the lives of runners begin that run in this process of the worker."""
    return f"{worker}/{process}."


def kept_claim(settlement: Settlement) -> Claim:
    """The claim of the one item that `flush_chunk` leaves to the runner."""
    claim, start = settlement.claim, settlement.claim.start + settlement.settled
    life, attempt, _, _, ready_us, since_us = claim.value.split("|")
    return replace(
        claim, unit=f"c:{claim.name}:{start}", value=f"{life}|{attempt}|1|0|{ready_us}|{since_us}", retry=0,
        start=start, count=1,
    )  # fmt: skip


def append_settlement(values: list[Argument], settlement: Settlement) -> None:
    claim = settlement.claim
    counts, results = settlement.counts, settlement.results
    values += (claim.unit, claim.value, settlement.verb, encode_rows(settlement.rows))
    if counts:
        values.append(len(counts))
        for status, number in counts.items():
            values += (status, number)
    else:
        values.append(0)
    if results:
        values.append(len(results))
        for action, result in results:
            values += (action, result)
    else:
        values.append(0)
    match settlement.verb:
        case "done":
            values += (settlement.outcome.value, int(settlement.fails_session), len(settlement.successors))
            for join in settlement.successors:
                values += (join.branch, join.predecessors, join.queue)
        case "expand":
            values += (settlement.size, settlement.max_concurrent)
        case "items":
            values += (
                settlement.settled, settlement.item_results, settlement.rest.value, settlement.delay_us,
                settlement.retry,
            )  # fmt: skip
        case "defer":
            values += (settlement.delay_us, settlement.retry)


def claim_of(unit: str, value: str, info: str) -> Claim:
    _, attempt, count, retry, ready_us, since_us = value.split("|")
    kind = unit[0]
    if kind == "c":
        name, _, start = unit[2:].rpartition(":")
        return Claim(
            UnitKind.CHUNK, name, unit, value, int(attempt), int(retry), int(start), int(count), int(ready_us),
            int(since_us),
        )  # fmt: skip
    numbers = [int(part) for part in info.split(",")]
    if kind == "f":
        size, succeeded, failed, timed_out, skipped, cancelled, spilled = numbers
        items = ItemCounts(size, succeeded, failed, timed_out, skipped, cancelled, bool(spilled))
        return Claim(
            UnitKind.FINISH, unit[2:], unit, value, int(attempt), int(retry), ready_us=int(ready_us),
            since_us=int(since_us), items=items,
        )  # fmt: skip
    settled, failed, skipped, upstream_failed = numbers
    joined = JoinCounts(settled - failed - skipped - upstream_failed, failed, skipped, upstream_failed)
    return Claim(
        UnitKind.BRANCH, unit[2:], unit, value, int(attempt), int(retry), ready_us=int(ready_us),
        since_us=int(since_us), joined=joined,
    )  # fmt: skip


def publications_of(flat: Sequence[bytes]) -> tuple[Publication, ...]:
    return tuple(
        Publication(
            flat[index].decode(),
            flat[index + 1].decode(),
            flat[index + 2].decode(),
            float(flat[index + 3]),
            flat[index + 4].decode(),
        )
        for index in range(0, len(flat), 5)
    )


def repairs_of(flat: Sequence[bytes]) -> tuple[Repair, ...]:
    return tuple(Repair(flat[at].decode(), flat[at + 1].decode(), int(flat[at + 2])) for at in range(0, len(flat), 3))


def live_claim_of(unit: str, value: str) -> LiveClaim:
    life, attempt, count, _, _, since_us = value.split("|")
    worker, _, runner = life.rpartition("/")
    return LiveClaim(unit, runner, worker, int(attempt), int(count), int(since_us))


def counts_of(fields: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name[2:].decode(): int(value) for name, value in fields.items() if name.startswith(b"n:")}


def items_of(fields: Mapping[bytes, bytes]) -> ItemProgress:
    counts = counts_of(fields)
    settled = sum(counts.values())
    started = int(fields[b"cursor"]) - int(fields.get(b"back", 0))
    return ItemProgress(
        int(fields[b"size"]), started, settled, counts.get("failed", 0) + counts.get("timed_out", 0), counts
    )
