"""The scripts of the broker: each is one step that happens whole or not at all. Their heads say what they promise.

They work on the broker's database, beside Celery's own keys:

| key | what for |
| --- | --- |
| `<queue>` | messages that wait, as Celery sends them: the newest left, the oldest right |
| `unacked` | messages that are held, by `<consumer>/<number>`: length and name of the queue, then the message |
| `unacked:<consumer>` | their numbers |
| `unacked_consumers` | consumers by the end of their lease, ms since the epoch, Redis's |
| `moving:<consumer>` | queues it waits for, with the number of the connection that does |
| `moving:<consumer>:<queue>` | what a blocking move has just taken |
| `unacked_look` | when leases were last looked at, and until when they are left alone |
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any, Final

import redis

Argument = str | bytes | int | float


class Script:
    """One script of `lua/`."""

    def __init__(self, name: str) -> None:
        self.source = files("tasks.transport.lua").joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, *values: Argument) -> Any:
        """Run it with these values; all names of keys but queues follow from them."""
        try:
            return client.execute_command("EVALSHA", self.sha, 0, *values)
        except redis.exceptions.NoScriptError:
            return client.execute_command("EVAL", self.source, 0, *values)


take: Final = Script("take")
settle: Final = Script("settle")
give_back: Final = Script("give_back")
renew: Final = Script("renew")
held: Final = Script("held")
lost: Final = Script("lost")
copies: Final = Script("copies")
