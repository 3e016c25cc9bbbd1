"""The proxy of the tests does to connections what it says."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.proxy import Cuts, Proxy
from tests.support.waiting import wait_until


class Answering(socketserver.BaseRequestHandler):
    """Answers each line; notes it first."""

    seen: list[bytes]

    def handle(self) -> None:
        try:
            while line := self.request.recv(1000):
                self.seen.append(line)
                self.request.sendall(b"to " + line)
        except ConnectionResetError:
            self.seen.append(b"reset")


@pytest.fixture
def seen() -> list[bytes]:
    """What the server has got."""
    return []


@pytest.fixture
def proxy(seen: list[bytes]) -> Iterator[Proxy]:
    handler = type("Handler", (Answering,), {"seen": seen})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with Proxy(f"redis://127.0.0.1:{server.server_address[1]}/0").running() as running:
            yield running
        server.shutdown()
        thread.join()


@contextmanager
def client_of(proxy: Proxy) -> Iterator[socket.socket]:
    port = int(proxy.url.rpartition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        yield client


def ask(client: socket.socket, line: bytes) -> bytes:
    client.sendall(line)
    return client.recv(1000)


def test_it_forwards_and_delays(proxy: Proxy) -> None:
    with client_of(proxy) as client:
        assert ask(client, b"one") == b"to one"
        proxy.delay_seconds = 0.1
        began = time.monotonic()
        assert ask(client, b"two") == b"to two"
        assert time.monotonic() - began >= 0.2


def test_a_lost_reply_is_one_to_a_request_that_was_carried_out(proxy: Proxy, seen: list[bytes]) -> None:
    cuts = Cuts((b"EVALSHA",), 1.0, random.Random(1))
    proxy.cut_at(cuts)
    with client_of(proxy) as client:
        assert ask(client, b"GET") == b"to GET"
        with pytest.raises(ConnectionResetError):
            ask(client, b"EVALSHA")
    assert seen[:2] == [b"GET", b"EVALSHA"]
    assert (cuts.lost_replies, cuts.lost_requests) == (1, 0)
    proxy.heal()
    with client_of(proxy) as client:
        assert ask(client, b"EVALSHA") == b"to EVALSHA"


def test_a_lost_request_has_not_come(proxy: Proxy, seen: list[bytes]) -> None:
    cuts = Cuts((b"COMMIT",), 1.0, random.Random(1), forwarded=0.0)
    proxy.cut_at(cuts)
    with client_of(proxy) as client, pytest.raises(ConnectionResetError):
        ask(client, b"COMMIT")
    assert b"COMMIT" not in seen
    assert (cuts.lost_replies, cuts.lost_requests) == (0, 1)


def test_in_silence_nothing_arrives_and_nobody_is_told(proxy: Proxy, seen: list[bytes]) -> None:
    with client_of(proxy) as client:
        assert ask(client, b"one") == b"to one"
        proxy.go_silent()
        client.settimeout(0.2)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                ask(client, b"two")
            proxy.heal()  # this connection stays as it is
        assert seen == [b"one"]
        with client_of(proxy) as another:
            assert ask(another, b"three") == b"to three"


def test_a_reset_is_seen_at_once(proxy: Proxy) -> None:
    with client_of(proxy) as client:
        assert ask(client, b"one") == b"to one"
        proxy.reset_all()
        with pytest.raises(ConnectionResetError):
            client.recv(1000)


def test_of_a_half_closed_connection_the_other_half_goes_on(proxy: Proxy, seen: list[bytes]) -> None:
    with client_of(proxy) as client:
        assert ask(client, b"one") == b"to one"
        proxy.half_close()
        assert ask(client, b"two") == b""
    wait_until(lambda: seen[:2] == [b"one", b"two"], "what it sends arrives")


def test_a_client_of_a_server_that_is_not_there_is_reset() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there, nor can anybody else
        port = taken.getsockname()[1]
        with (
            Proxy(f"redis://127.0.0.1:{port}/0").running() as proxy,
            pytest.raises(ConnectionResetError),  # when it has connected, or while it does
            client_of(proxy) as client,
        ):
            client.recv(1000)
