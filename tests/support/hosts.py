"""Hosts of a test's own on this machine: a network namespace each, with a cable to ours, whose packets can be dropped.

Servers stay where they are, on our loopback: a relay on our end of each cable forwards to them. Needs root, `ip` and
`iptables`. Nothing outside of what is made here is touched: the firewall rules are in the namespaces, the addresses on
the cables; all of it is gone after the block, also when it fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

NEEDED: Final = "needs {}: run as root on Linux, with `ip` and `iptables` (apt install iproute2 iptables)"
ROOT: Final = Path(__file__).resolve().parents[2]
#: Variables with the URL of a server.
URLS: Final = ("REDIS_URL", "DATABASE_URL")


def missing() -> str:
    """What hosts of our own lack here; '': nothing."""
    if os.geteuid() != 0:
        return "root"
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            return f"`{program}`"
    name = f"parallelizer-{os.getpid()}-try"
    if _run("ip", "netns", "add", name).returncode:
        return "network namespaces"
    try:
        return "" if not _run("ip", "netns", "exec", name, "iptables", "-L").returncode else "iptables in a namespace"
    finally:
        _run("ip", "netns", "del", name)


def require() -> None:
    """Hosts can be made; else the test is skipped, and says what it needs."""
    lacking = missing()
    if lacking:
        pytest.skip(NEEDED.format(lacking))


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace in which programs can be run."""

    namespace: str
    #: Our end of its cable, where the servers are for it.
    server_address: str

    def around(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment of a program on this host: the servers are at the other end of the cable."""
        found = {name: environment[name].replace("127.0.0.1", self.server_address) for name in URLS}
        return {**environment, **found}

    def command(self, command: Sequence[str]) -> list[str]:
        """What starts a program on this host; it has the process id of this command."""
        return [shutil.which("ip") or "ip", "netns", "exec", self.namespace, *command]

    def cut(self, *ports: int, resets: bool = False) -> None:
        """Packets to and from these ports of the servers are dropped; or connections are refused and reset."""
        verdict = ("REJECT", "--reject-with", "tcp-reset") if resets else ("DROP",)
        for port in ports:
            self._rule("OUTPUT", "--dport", str(port), "-j", *verdict)
            if not resets:
                self._rule("INPUT", "--sport", str(port), "-j", *verdict)

    def lose(self, share: float) -> None:
        """So much of all packets is lost, by chance, each way."""
        for chain in ("INPUT", "OUTPUT"):
            self._rule(chain, "-m", "statistic", "--mode", "random", "--probability", str(share), "-j", "DROP")

    def heal(self) -> None:
        """All packets arrive."""
        _must("ip", "netns", "exec", self.namespace, "iptables", "-F")

    def _rule(self, chain: str, *rule: str) -> None:
        _must("ip", "netns", "exec", self.namespace, "iptables", "-A", chain, "-p", "tcp", *rule)


@contextmanager
def own_hosts(count: int, ports: Sequence[int]) -> Iterator[list[Host]]:
    """So many hosts, which reach these ports of our loopback, and nothing else."""
    with ExitStack() as exits:
        found = [_make(number, exits) for number in range(1, count + 1)]
        exits.enter_context(_relaying([host.server_address for host in found], ports))
        yield found


def _make(number: int, exits: ExitStack) -> Host:
    namespace, cable = f"parallelizer-{os.getpid()}-{number}", f"prl{os.getpid() % 1_000_000}-{number}"
    # one of the private nets; each process and each cable has one of its own
    net = f"10.{200 + os.getpid() % 50}.{(os.getpid() // 50) % 250}.{4 * number}"
    ours, theirs = _next(net, 1), _next(net, 2)
    exits.callback(_remove, namespace, cable)
    _must("ip", "netns", "add", namespace)
    _must("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _must("ip", "addr", "add", f"{ours}/30", "dev", cable)
    _must("ip", "link", "set", cable, "up")
    for arguments in (("addr", "add", f"{theirs}/30", "dev", "eth0"), ("link", "set", "eth0", "up"),
                      ("link", "set", "lo", "up")):  # fmt: skip
        _must("ip", "-n", namespace, *arguments)
    return Host(namespace, ours)


def _remove(namespace: str, cable: str) -> None:
    for pid in _run("ip", "netns", "pids", namespace).stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _run("ip", "link", "del", cable)
    _run("ip", "netns", "del", namespace)


def _next(address: str, step: int) -> str:
    head, _, last = address.rpartition(".")
    return f"{head}.{int(last) + step}"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _must(*command: str) -> None:
    done = _run(*command)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


@contextmanager
def _relaying(addresses: Sequence[str], ports: Sequence[int]) -> Iterator[None]:
    """What comes to these addresses is forwarded to the same port of our loopback."""
    places = [f"{address}:{port}" for address in addresses for port in ports]
    command = [sys.executable, "-m", "tests.support.relay", *places]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as relay:
        assert relay.stdout is not None
        if relay.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the relay to {', '.join(places)} did not start")
        try:
            yield
        finally:
            relay.kill()
