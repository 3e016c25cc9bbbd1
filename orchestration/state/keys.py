"""Every key of the live state: its name, its type, what it holds.

All names start with `pz:{<namespace>}:`. The braces are a hash tag: on a cluster one namespace is one slot, so a script
may touch any key of it. The names are spelled here only: the scripts get their key functions generated from `KEYS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Key:
    """A kind of key: `template` has a `%s` for each parameter."""

    template: str
    type: str
    holds: str

    @property
    def parameters(self) -> int:
        return self.template.count("%s")


KEYS: Final[dict[str, Key]] = {
    # One flow session
    "session": Key("session:%s", "hash", "status, version, workflow, day, queues, limit, limit_given: "
                   "what it was before an operator set it, key: concurrency key, timeout, weight, priority, "
                   "vtime, open, failed, age, signature, ender, rseq, header: runners of its chord, if it has one, "
                   "turn: queue that one permit is kept for, cancelled: why it was stopped (shared/stop.lua), "
                   "deadline: µs at which it passes, max_wait: µs that it and its branches may wait, "
                   "began: µs since when its branches do, ousted: sessions that gave way to it, paused: why it is, "
                   "paused_by: since when and by whom by itself: µs|who, "
                   "sseq: of its statuses for PostgreSQL, ended: µs at which it did, "
                   "again: how often its completion was taken for lost, complete_at: µs at which it will be again, "
                   "n:<status> tasks ended (items when their for_each has ended), "
                   "pub:<queue> runners on their way, each:<action> a for_each that was expanded, "
                   "blocked:<queue> µs since when it waits there for a limit"),
    "own": Key("session:%s:own", "hash",
               "claimed unit → life|attempt|count|retry|ready µs|since µs; its length is the permits in use"),
    "joins": Key("session:%s:joins", "hash",
                 "branch → predecessors settled; branch:F, :K, :U → of these not succeeded"),
    "results": Key("session:%s:results", "hash",
                   "action → result as JSON; @payload → payload; of a session that is traced @trace, and "
                   "@began:<branch> → µs at which a branch that began more than once first began"),
    "ready": Key("session:%s:ready:%s", "zset", "units that may run on a queue, by the µs they became ready"),
    "items": Key("session:%s:items:%s", "hash",
                 "a for_each: queue, size, cursor, running, max, back, at, bytes, spilled, n:<status>"),
    "returned": Key("session:%s:returned:%s", "zset",
                    "a for_each: chunks that were claimed and came back, by the µs they became ready"),
    "bits": Key("session:%s:bits:%s", "bitmap", "a for_each: one bit for each settled item"),
    "item_results": Key("session:%s:itemresults:%s", "hash",
                        "a for_each: first item of a settled chunk → JSON array of results"),
    "runners": Key("session:%s:runners", "hash",
                   "runner → life|permits|1 until its first call (life empty: published); "
                   "runner:call → number and reply of its last call"),
    "messages": Key("session:%s:messages", "hash", "runner of a chord session → the message that publishes it again"),
    "parked": Key("session:%s:parked", "zset",
                  "runners of a chord session that have come and are neither on their way nor at work → µs since when"),
    "deferred": Key("session:%s:deferred", "zset", "units waiting for a time → due µs"),
    "deaths": Key("session:%s:deaths", "hash",
                  "unit that came back from a dead process → how that ended, for people; empty: nobody knows. Of a "
                  "session that is traced @<unit> → µs at which it was claimed and lost, and the life that had it"),
    # A runner that has left
    "last_call": Key("last:%s", "string", "number and reply of the last call of a runner that left; expires"),
    # A session that was closed
    "closed": Key("closed:%s", "string", "a message that comes again must not open it again; who is to deliver its "
                  "result, and µs until when: holder|µs; expires"),
    # A task whose message may come twice at the same moment: RabbitMQ sends it again when a connection is lost
    "holder": Key("holder:%s", "string", "the delivery of its message that is at work: worker/process.token; expires"),
    # A session that was cancelled
    "cancelled": Key("cancelled:%s", "string", "what runs of the session is to end, and it is not to begin; expires"),
    "heeded": Key("heeded:%s", "set", "lives of runners that have seen that their session was cancelled; expires"),
    # What may be lost
    "epoch": Key("epoch", "string", "number of the life of live state; none, or not PostgreSQL's: something is lost"),
    "ticks": Key("ticks", "string", "counted by upkeep all the time; less than before: Redis has lost something"),
    "looking": Key("looking", "string", "one process looks for what Redis has lost; expires"),
    "held_sessions": Key("sessions:held", "zset", "sessions whose message a worker holds → µs until when"),
    # What is paused
    "paused": Key("paused", "hash", "what is paused, also of sessions to come, *: all; workflow:<name>: those of a "
                  "workflow → since when and by whom: µs|who"),
    "paused_session": Key("paused:%s", "string", "a session that is not open: it is paused when it is: "
                          "µs|who; expires"),
    # The fleet
    "permits": Key("permits:%s", "zset", "permits of a level (global, workflow:<name>, key:<key>) → µs taken; "
                   "sessions that run, of sessions:workflow:<name> and sessions:key:<key>"),
    "limits": Key("limits", "hash",
                  "level → most branches at once, sessions → most flow sessions at once; what is in force"),
    "limits_given": Key("limits:given", "hash", "the same, as settings and definitions say"),
    "limits_set": Key("limits:set", "hash", "the same, as an operator says; wins over what is given"),
    "blocked": Key("blocked:%s", "zset", "queue|session that found the limit of a level reached, by virtual time; "
                   "sessions that are queued, of sessions:…, in their order"),
    "excess": Key("excess", "set", "levels whose limit was lowered below their use"),
    "unfinished": Key("unfinished", "set", "levels that have room for more that wait than one call can look at"),
    "key_sessions": Key("keys", "hash", "concurrency key → open sessions that have it"),
    "slots": Key("slots:%s", "hash", "worker → its slots on this queue"),
    "slots_total": Key("slots:%s:total", "string", "sum of the slots of the queue"),
    "workers": Key("workers", "zset", "worker → lease expiry in µs"),
    "worker_runners": Key("worker:%s:runners", "set", "queue|runner running in this worker"),
    "worker_queues": Key("worker:%s:queues", "set", "queues that this worker serves"),
    "outage": Key("outage", "hash",
                  "looked: µs at which leases that are over were last looked for; until: µs until which none is taken "
                  "for over, because nobody had looked for a while: Redis was away"),
    "queues": Key("queues", "set", "queues that have, or had, slots or waiting sessions"),
    "inflight": Key("inflight:%s", "zset", "runners of a queue, published or running → lease expiry in µs"),
    "waiting": Key("waiting:%s", "zset", "sessions with ready units and too few runners on the queue, by virtual time"),
    "clock": Key("clock", "string", "virtual time of the fleet in µs; only rises"),
    "crowded": Key("crowded:%s", "string", "held for 40 ms by the runner that gave way to the broker's queue"),
    "turns": Key("turns", "zset", "sessions in which a permit is kept for the queue that has the turn → µs since when"),
    "delayed": Key("delayed", "zset", "sessions with deferred units → earliest due µs"),
    "due": Key("due", "zset", "sessions of which something is to be ended at a time, or looked at → µs"),
    "reaper": Key("reaper", "hash", "holder: the worker that looks after open sessions, place: how far it is; expires"),
    "repairs": Key("repairs", "hash", "cause → how many sessions, runners and workers were repaired for it"),
    "sessions_open": Key("sessions:open", "zset", "sessions with live state → µs opened"),
    "sessions_running": Key("sessions:running", "zset", "open sessions that may run → µs admitted"),
    "sessions_queued": Key("sessions:queued", "zset", "open sessions above MAX_CONCURRENT_WORKFLOWS, in their order"),
    "rate": Key("rate:%s", "hash",
                "a rate limit: tat, µs at which all its tokens are there again; line, the same with those promised to "
                "calls that wait; expires"),
    "rate_place": Key("rate:place:%s", "string",
                      "of an attempt of a task: the µs at which its turn comes by its rate limits, or b and those at "
                      "which it began; expires"),
    "status": Key("status", "stream", "status updates on their way to PostgreSQL"),
    "status_full": Key("status:full", "string",
                       "the stream is larger than it may be, so runners claim nothing; expires"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeySpace:
    """The keys of one namespace."""

    namespace: str

    @property
    def prefix(self) -> str:
        return f"pz:{{{self.namespace}}}:"

    def key(self, kind: str, *parameters: str) -> str:
        """The name of a key; `kind` is a name in `KEYS`, `parameters` fill its template."""
        return self.prefix + KEYS[kind].template % parameters


def lua_key_functions(source: str) -> str:
    """Lua source of a local function `<kind>_key(…)` for each kind of key that `source` uses; it expects `prefix`.

    Only those: a script makes its functions anew in every call, about 0.3 µs each (measured).
    """
    lines = []
    for name, key in KEYS.items():
        if f"{name}_key(" not in source:
            continue
        names = [f"p{index}" for index in range(key.parameters)]
        parts = key.template.split("%s")
        pieces = [f"'{parts[0]}'"] if parts[0] else []
        for parameter, part in zip(names, parts[1:], strict=True):
            pieces.append(parameter)
            if part:
                pieces.append(f"'{part}'")
        lines.append(f"local function {name}_key({', '.join(names)}) return prefix .. {' .. '.join(pieces)} end")
    return "\n".join(lines)
