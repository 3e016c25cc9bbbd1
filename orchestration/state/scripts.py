"""Loads the Lua scripts: resolves includes, reads names from headers, calls them by name.

A script is one file in `lua/`. Its header is its contract; two lines of it are read here:

    -- ARGV: session runner …      names of the arguments; a last name with * takes all that follow
    -- INCLUDE: time ready claim   files of lua/shared/, in that order

KEYS[1] is the prefix of the namespace; it also routes the call on a cluster (keys.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from orchestration.state.client import ScriptCaller
from orchestration.state.keys import KeySpace, lua_key_functions
from orchestration.state.patience import Keep
from orchestration.telemetry.probes import probe

_HEADER = re.compile(r"^-- (ARGV|INCLUDE): ?(.*)$", re.MULTILINE)
_USED = re.compile(r"\bARGV\b")
Argument = str | bytes | int | float


class Script:
    """One Lua script, ready to be called by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.before, self.after = f"script.{name}.before", f"script.{name}.after"  # probes
        text = files("orchestration.state.lua").joinpath(f"{name}.lua").read_text(encoding="utf-8")
        header = {kind: words.split() for kind, words in _HEADER.findall(text)}
        self._names = header.get("ARGV", [])
        self._rest = self._names.pop()[:-1] if self._names and self._names[-1].endswith("*") else None
        unbound = [word for word in self._names if not word.isidentifier()]
        if unbound or "ARGV" not in header:
            raise ValueError(f"{name}.lua: the ARGV line of the header is missing or wrong: {unbound}")
        if _USED.search(_HEADER.sub("", text)) and self._rest is None:
            raise ValueError(f"{name}.lua: uses ARGV directly, but its header names no rest argument")
        bindings = [f"local {word} = ARGV[{index}]" for index, word in enumerate(self._names, 1)]
        if self._rest:
            bindings.append(f"local {self._rest} = {len(self._names) + 1} -- index of the first in ARGV")
        shared = [_shared(word) for word in header.get("INCLUDE", [])]
        body = "\n".join([*shared, text])
        self.source = "\n".join(["local prefix = KEYS[1]", *bindings, lua_key_functions(body), body])
        self._expected = frozenset(self._names)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(
        self, caller: ScriptCaller, space: KeySpace, rest: list[Argument] | None = None, **named: Argument
    ) -> Any:
        """Run the script.

        Args: see `values`.
        Returns: its reply, bytes and integers in nested lists.
        """
        return self.run(caller, space, self.values(rest, **named))

    def values(self, rest: list[Argument] | None = None, **named: Argument) -> list[Argument]:
        """What the script is called with, in the order of its header.

        Args: named: one value for each name in its header; rest: what follows them.
        Raises: TypeError: names differ from the header's.
        """
        if named.keys() != self._expected or (rest is not None and self._rest is None):
            raise TypeError(f"{self.name}.lua takes {', '.join(self._names)}; got {', '.join(named)}")
        values: list[Argument] = [named[word] for word in self._names]
        if rest:
            values.extend(rest)
        return values

    def run(self, caller: ScriptCaller, space: KeySpace, values: list[Argument], keep: Keep | None = None) -> Any:
        """Run the script with values in the order of its header: for the hot path."""
        probe(self.before)
        reply = caller.call(self.sha, self.source, [1, space.prefix, *values], keep)
        probe(self.after)
        return reply

    def send(
        self, caller: ScriptCaller, space: KeySpace, values: list[Argument], answered: Callable[[Any], None],
        keep: Keep | None = None,
    ) -> None:  # fmt: skip
        """Send a call of the script and go on; `answered` gets the reply, see `ScriptCaller.send`."""
        probe(self.before)
        caller.send(self.sha, self.source, [1, space.prefix, *values], answered, keep)
        probe(self.after)


@cache
def load_script(name: str) -> Script:
    """The script `lua/<name>.lua`, read once per process."""
    return Script(name)


@cache
def _shared(name: str) -> str:
    text = files("orchestration.state.lua.shared").joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return f"-- lua/shared/{name}.lua\n{text}"
