"""A RabbitMQ for tests: one that TEST_BROKER_URL names, or a server of the tests' own (`TEST_BROKER_URL=own`).

The suite with workers runs against it then; without it, Redis is the broker, as everywhere else. All queues of the
names in `QUEUES` belong to the tests, and are removed before and after each module: give them a vhost of their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import celery
import pytest
from kombu.connection import Connection

from parallelizer.services.processes import start_tethered

VARIABLE = "TEST_BROKER_URL"
OWN = "own"
#: Where the program is, beside the folders of PATH: Debian's scripts there insist on a user of their own.
FOLDERS = (Path("/usr/lib/rabbitmq/bin"), Path("/opt/rabbitmq/sbin"), Path("/usr/local/sbin"))
#: All queues that tests with workers use.
QUEUES = (
    "branches", "lame", "two", "turns", "each", "nobody", "one", "gpu", "alone", "stuck", "few", "killed", "limited",
    "own", "slow", "other",
)  # fmt: skip
READY_SECONDS = 60.0
STOP_SECONDS = 30.0


def given_broker() -> str:
    """The URL of the RabbitMQ that workers are to use; empty: there is none."""
    return os.environ.get(VARIABLE, "")


def find_program() -> Path | None:
    """`rabbitmq-server`, if it is on this machine."""
    found = [folder / "rabbitmq-server" for folder in FOLDERS if (folder / "rabbitmq-server").is_file()]
    if found:
        return found[0]
    on_path = shutil.which("rabbitmq-server")
    return Path(on_path) if on_path else None


class OwnRabbit:
    """One server in a folder, on 127.0.0.1; ends with this process, and so does the port mapper that it needs."""

    def __init__(self, program: Path, folder: Path, **options: object) -> None:
        self._program = program
        self._folder = folder
        self._port, self._distribution_port, self._mapper_port = _free_ports(3)
        self._options = options
        self._server: subprocess.Popen[bytes] | None = None
        self._mapper: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    @property
    def log(self) -> Path:
        return self._folder / "output"

    def start(self) -> None:
        """Start it, on the data that are there."""
        advanced = self._folder / "advanced.config"
        # looked at for messages that are held too long, ms; a minute by default
        advanced.write_text("[{rabbit, [{channel_tick_interval, 1000}]}].\n")
        (self._folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\n"
            + "".join(f"{name} = {value}\n" for name, value in self._options.items())
        )
        if self._mapper is None:
            self._mapper = self._run(["/usr/bin/env", "epmd"])
        self._server = self._run([str(self._program)])

    def wait_ready(self) -> None:
        """It takes connections."""
        deadline = time.monotonic() + READY_SECONDS
        assert self._server is not None
        while time.monotonic() < deadline:
            assert self._server.poll() is None, f"RabbitMQ did not start:\n{self.log.read_text(errors='replace')}"
            with suppress(OSError), Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
                return
            time.sleep(0.1)
        raise AssertionError(f"RabbitMQ did not answer:\n{self.log.read_text(errors='replace')}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """It has ended, by this signal to all of its processes."""
        if self._server is None:
            return
        self.send(number)
        try:
            self._server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._server.wait()
        self.send(signal.SIGKILL)  # what the script that was started has left
        self._server = None

    def send(self, number: signal.Signals) -> None:
        """Signal all of its processes."""
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, number)

    def close(self) -> None:
        """Nothing of it runs any more."""
        self.send(signal.SIGCONT)
        self.stop()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
            self._mapper = None

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`; returns what it says."""
        command = [str(self._program.with_name("rabbitmqctl")), "--silent", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout

    def reset_connections(self) -> None:
        """All connections are closed by the server."""
        self.control("close_all_connections", "a test")

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return start_tethered(
                command, death_signal=signal.SIGTERM, environment=self._environment, folder=self._folder, output=output
            )

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self._program.parent}:{os.environ.get('PATH', os.defpath)}", "LC_ALL": "C.UTF-8",
            "HOME": str(self._folder),
            "RABBITMQ_NODENAME": f"test{self._port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"), "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
        }  # fmt: skip


def _free_ports(number: int) -> list[int]:
    with ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def running_rabbitmq(**options: object) -> Iterator[OwnRabbit]:
    """A server of one's own for the time of the block; skips the test where there is none on this machine.

    Args: options: lines of its `rabbitmq.conf`.
    """
    program = find_program()
    if program is None:
        pytest.skip("needs RabbitMQ: install rabbitmq-server (Debian and Ubuntu: apt install rabbitmq-server)")
    folder = Path(tempfile.mkdtemp(prefix="parallelizer-rabbitmq-"))
    server = OwnRabbit(program, folder, **options)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


class Messages:
    """What waits in a broker, and what workers are at."""

    def __init__(self, broker_url: str) -> None:
        self._app = celery.Celery("look", broker=broker_url, set_as_current=False)

    def waiting(self, queues: Sequence[str]) -> int:
        """Messages that wait."""
        total = 0
        with self._app.connection_for_read() as connection:
            for queue in queues:
                with suppress(*connection.channel_errors):  # nobody has used it yet
                    total += connection.channel().queue_declare(queue, passive=True).message_count
        return total

    def consumers(self, queue: str) -> int:
        """Workers that take messages of a queue."""
        with self._app.connection_for_read() as connection:
            return int(connection.channel().queue_declare(queue, passive=True).consumer_count)

    def at_work(self, workers: int, text: str = "") -> int:
        """Requests in workers that answer, those whose id or arguments have the text.

        Args: workers: how many are to answer.
        """
        inspect = self._app.control.inspect(limit=workers, timeout=2.0)
        answers: list[Any] = [inspect.active() or {}, inspect.reserved() or {}]
        found = {
            (worker, request["id"], str(request["delivery_info"]))
            for answer in answers
            for worker, requests in answer.items()
            for request in requests
            if text in str(request["id"]) or text in str(request["args"])
        }
        return len(found)


def remove_queues(broker_url: str) -> None:
    """None of the tests' queues is there, nor what was in them."""
    with Connection(broker_url) as connection:
        connection.connect()
        for queue in QUEUES:
            connection.default_channel.queue_delete(queue)


@pytest.fixture(scope="session", autouse=True)
def broker_of_session() -> Iterator[None]:
    """With `TEST_BROKER_URL=own`, a server for all tests of the session."""
    if given_broker() != OWN:
        yield
        return
    with running_rabbitmq() as server:
        os.environ[VARIABLE] = server.url
        yield
        os.environ[VARIABLE] = OWN


@pytest.fixture(scope="module", autouse=True)
def empty_broker(broker_of_session: None) -> Iterator[None]:
    """No message of another module is in the broker."""
    url = given_broker()
    if url:
        remove_queues(url)
    yield
    if url:
        remove_queues(url)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Tests of Redis as the broker say so, and are skipped where the broker is a RabbitMQ."""
    if not given_broker():
        return
    for item in items:
        marker = item.get_closest_marker("redis_broker")
        if marker is not None:
            item.add_marker(pytest.mark.skip(reason=f"the broker is RabbitMQ: {marker.args[0]}"))
