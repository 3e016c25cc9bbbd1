"""Celery's Redis transport, but for how a worker takes messages and what it does with those that it holds.

A worker waits for messages with one connection for each queue. It sends two commands at once: a move that blocks
(`BLMOVE`, queue → list of this consumer), and the script `take`, which the server runs as soon as the move is over. So
a message is popped and recorded although nobody may read the answer. Celery's own transport pops (`BRPOP`), reads the
answer and records then: what is answered into a dead connection is lost.

While messages come, `take` alone is sent, for all queues in turn: one round trip for a message, as before.

Everything else is Celery's: sending, fanout, priorities, and processes that read messages and are no workers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any, Final
from urllib.parse import urlsplit

import kombu.transport
import redis
from kombu.transport import redis as celerys
from kombu.transport import virtual
from kombu.utils.eventio import ERR, READ
from kombu.utils.json import loads
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestration.telemetry.probes import probe
from tasks.transport import scripts
from tasks.transport.deliveries import deliveries

_log = logging.getLogger(__name__)
#: `redis+socket://` is among them.
SCHEMES: Final = ("redis", "rediss")
#: While the server's memory is full it refuses moves: how often it is asked then.
FULL_SECONDS: Final = 0.25
#: What a message that can't be read shows of itself in the log.
SHOWN_BYTES: Final = 1000


class LeasedQoS(celerys.QoS):
    """Acknowledges messages of a worker by `deliveries`."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """It is delivered; the take has recorded it."""
        if deliveries.is_ours(delivery_tag):
            deliveries.hold(delivery_tag, message._raw)  # noqa: SLF001 - as kombu does
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """It needs no more work."""
        if deliveries.is_ours(delivery_tag):
            deliveries.settle(delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """It needs no more work, or goes back to its queue."""
        if not deliveries.is_ours(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)
            return
        if requeue:
            deliveries.give_back(delivery_tag)
        else:
            deliveries.settle(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The channel closes: no reason to run again what is at work. `Deliveries.reopen` gives back what is not."""
        for tag in [tag for tag in self._delivered if deliveries.is_ours(tag)]:
            del self._delivered[tag]
        super().restore_unacked_once(stderr)


class Line:
    """One connection that takes messages; its `connection` is what kombu's poller asks a client for."""

    def __init__(self, channel: LeasedChannel, key: str) -> None:
        self.key = key
        self.connection: Any = None
        #: When the commands were sent whose answers have not been read; None: none were.
        self.sent_at: float | None = None
        self.waits = False
        #: The server has said so on this connection.
        self.knows_script = False
        self._channel = channel
        self._number: int | None = None
        self._connection_number: int | None = None
        self._is_full = False

    def send(self, keys: list[str], *, wait_seconds: float) -> None:
        """Send a take from `keys`; with a time to wait, after a move from this line's own queue that blocks so long."""
        if self._number is None:
            self._number = deliveries.begin_take()
        commands: list[tuple[scripts.Argument, ...]] = []
        if wait_seconds:
            moving = f"moving:{deliveries.consumer}:{self.key}"
            if self._is_full:
                commands.append(("BRPOP", f"{moving}:nothing", FULL_SECONDS))
            else:
                commands.append(("BLMOVE", self.key, moving, "RIGHT", "LEFT", wait_seconds))
        if self._connection_number is None:
            self._connection_number = deliveries.next_connection()
        arguments: list[scripts.Argument] = [
            len(keys), *keys, deliveries.consumer, self._number, deliveries.lease_ms, self.key, self._connection_number,
        ]  # fmt: skip
        if self.knows_script:
            commands.append(("EVALSHA", scripts.take.sha, *arguments))
        else:
            commands.append(("EVAL", scripts.take.source, *arguments))
        self.waits, self.sent_at = bool(wait_seconds), time.monotonic()
        probe(scripts.take.before)
        # a check of redis-py's own might connect anew, behind the back of the event loop
        self.connection.send_packed_command(self.connection.pack_commands(commands), check_health=False)

    def read(self) -> tuple[str, str, bytes] | None:
        """The answer: id, queue and text of a message, or None.

        Raises: a connection error: the line is cut; the same take is sent again on the next one.
        """
        try:
            if self.waits:
                self._read_move()
            try:
                answer = self.connection.read_response()
            except redis.exceptions.NoScriptError:  # the server has restarted behind a proxy, or was told to forget
                self.knows_script, self.sent_at = False, None
                return None
        except redis.exceptions.ResponseError as error:
            # such as a server that has become a replica: another connection may reach the right one
            self.cut()
            raise redis.exceptions.ConnectionError(f"the broker refused to give messages: {error}") from error
        except self._channel.connection_errors:
            self.cut()
            raise
        self.sent_at, self.knows_script = None, True
        assert self._number is not None
        if answer is None:
            return None  # the number is as good as new
        probe(scripts.take.after)
        delivery = deliveries.id_of(self._number)
        deliveries.end_take(self._number)
        self._number = None
        return delivery, answer[0].decode(), answer[1]

    def _read_move(self) -> None:
        self._is_full = False
        try:
            self.connection.read_response()
        except redis.exceptions.OutOfMemoryError:  # it moves nothing; `take` works
            self._is_full = True

    def cut(self) -> None:
        """Close the connection; the next `send` needs another."""
        if self.connection is not None:
            self.connection.disconnect()

    def was_cut(self) -> None:
        """The connection is closed: no answer will come."""
        self.sent_at, self._connection_number, self.knows_script = None, None, False

    def close_after_fork(self) -> None:
        """A child has no use for it; the parent's event loop, which it shares, must not hear of it."""
        sock = getattr(self.connection, "_sock", None)
        if sock is not None:
            sock.close()


class LeasedPoller(celerys.MultiChannelPoller):
    """Waits for lines as well."""

    def _register_BRPOP(self, channel: LeasedChannel) -> None:  # noqa: N802 - kombu's name
        if not channel.takes:
            super()._register_BRPOP(channel)
            return
        for line in channel.idle_lines():
            if line.connection is None:
                line.connection = channel.new_connection()
            if line.connection._sock is None or (channel, line, line) not in self._chan_to_sock:  # noqa: SLF001
                self._register(channel, line, line)
            channel.send(line)

    def on_readable(self, fileno: int) -> Any:
        """Read what came; of a line even without credit, as it is recorded as ours."""
        channel, line = self._fd_to_chan.get(fileno, (None, None))
        if isinstance(line, Line):
            return channel.read_line(line)
        return super().on_readable(fileno)

    def handle_event(self, fileno: int, event: int) -> Any:
        """The same, without an event loop."""
        if isinstance(self._fd_to_chan.get(fileno, (None, None))[1], Line):
            return (self.on_readable(fileno), self) if event & (READ | ERR) else None
        return super().handle_event(fileno, event)

    def maybe_check_brpop_health(self) -> None:
        """Cut lines whose answer is overdue: the peer has gone silent."""
        super().maybe_check_brpop_health()
        now = time.monotonic()
        for channel in self._channels:
            patience = channel.brpop_timeout + channel.health_check_interval
            for line in channel.lines:
                if line.sent_at is None or now - line.sent_at < patience:
                    continue
                if not celerys._socket_readable(line.connection._sock):  # noqa: SLF001 - kombu has no other
                    _log.warning("the broker has been silent for %.0f s; reconnecting", now - line.sent_at)
                    line.cut()


class LeasedChannel(celerys.Channel):
    """A channel; one that consumes with acknowledgements in a worker takes messages by lines."""

    QoS = LeasedQoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.takes = False
        self._lines: dict[str, Line] = {}
        self._client_kept: Any = None
        self._searches = True
        self._without_ack: set[str] = set()
        super().__init__(*args, **kwargs)
        if deliveries.is_consumer:
            deliveries.connect_as(self._connparams())

    @property
    def lines(self) -> list[Line]:
        """All that there are."""
        return list(self._lines.values())

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume; from a queue without acknowledgements as Celery does."""
        if not no_ack and deliveries.is_consumer and queue not in self._fanout_queues:
            self.takes = True
        if no_ack:
            self._without_ack.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """A client for one operation: always the same, since to make one takes longer than most operations."""
        if client is None:
            if self._client_kept is None or self._client_kept.connection_pool is not self.pool:
                self._client_kept = self._create_client()
            client = self._client_kept
        yield client

    def new_connection(self) -> Any:
        """A connection for a line; the pool has too few for many queues."""
        pool = self.async_pool
        return pool.connection_class(**pool.connection_kwargs)

    def new_client(self) -> redis.Redis:
        """A client of the same server, which outlives the channel."""
        return redis.Redis(connection_pool=redis.ConnectionPool(**self._connparams()))

    def idle_lines(self) -> list[Line]:
        """Lines that are to be sent something now: while messages may wait, one that asks for all queues."""
        keys = self._keys()
        for key in [key for key in self._lines if key not in keys and self._lines[key].sent_at is None]:
            self._lines.pop(key).cut()
        for key in keys:
            if key not in self._lines:
                self._lines[key] = Line(self, key)
        idle = [line for line in self.lines if line.sent_at is None]
        if not self._searches:
            return idle
        asks = any(line.sent_at is not None and not line.waits for line in self.lines)
        return [] if asks else idle[:1]

    def send(self, line: Line) -> None:
        """Send a line out."""
        deliveries.say_unsaid()
        if self._searches:
            line.send(self._keys(), wait_seconds=0)
        else:
            line.send([line.key], wait_seconds=self.brpop_timeout)

    def read_line(self, line: Line) -> bool:
        """Read a line's answer and deliver its message.

        Returns: True.
        Raises: Empty: there was none; a connection error.
        """
        if line.sent_at is None:  # nothing is expected: the server has closed the connection
            line.cut()
            raise Empty
        waited = line.waits
        found = line.read()
        if found is None:
            self._searches = (self._searches and waited) or not line.knows_script
            raise Empty
        self._searches = True
        delivery, key, text = found
        queue = key.rsplit(self.sep, 1)[0]
        try:
            message = loads(text)
            message["properties"]["delivery_tag"] = delivery
        except (ValueError, KeyError, TypeError):
            _log.exception("a message of queue %s can't be read and is removed: %.*r", queue, SHOWN_BYTES, text)
            deliveries.settle(delivery)
            return True
        if not self.qos.can_consume():
            deliveries.hold(delivery, message)
            deliveries.give_back(delivery)
            return True
        if queue in self._without_ack:
            deliveries.settle(delivery)
        if deliveries.blocks:  # no other message may come while this one's task runs
            for other in self.lines:
                other.cut()
        self._queue_cycle.rotate(queue)
        self.connection._deliver(message, queue)  # noqa: SLF001 - as kombu does
        return True

    def _receive_one(self, subscriber: Any) -> Any:
        """Read a remote command.

        Raises: a connection error, when the connection is gone: redis-py 8.1 would connect anew, and the event loop
            would stand still until somebody sends a command.
        """
        if subscriber.connection is not None:
            subscriber.connection.retry = Retry(NoBackoff(), 0)
        return super()._receive_one(subscriber)

    def stop_taking(self) -> None:
        """Take nothing more; what is at work can still be acknowledged."""
        self.takes = False
        self._active_queues.clear()
        for line in self.lines:
            line.cut()
        self._lines.clear()

    def close(self) -> None:
        """Close; what is still answered on a line is asked for again by the next channel."""
        self.takes = False
        super().close()

    def _keys(self) -> list[str]:
        queues = self._queue_cycle.consume(len(self.active_queues))
        return [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]

    def _on_connection_disconnect(self, connection: Any) -> None:
        super()._on_connection_disconnect(connection)
        for line in self.lines:
            if line.connection is connection:
                line.was_cut()
                self._searches = True  # what it may have been answered is asked for without a wait

    def _disconnect_pools(self) -> None:
        super()._disconnect_pools()
        for line in self.lines:
            line.cut()

    def _after_fork(self) -> None:
        for line in self.lines:
            line.close_after_fork()
        self._lines.clear()
        super()._after_fork()


class LeasedTransport(celerys.Transport):
    """The transport of `redis://` and `rediss://`."""

    Channel = LeasedChannel
    #: A server that takes nothing now is as good as away: a worker connects again, a sender tries again.
    connection_errors = (
        *celerys.Transport.connection_errors, redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError,
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle: Any = LeasedPoller()


def is_redis(broker_url: str | None) -> bool:
    """Whether Celery takes this transport for a broker's URL."""
    return urlsplit(broker_url or "").scheme.partition("+")[0] in SCHEMES


def use_leased_transport() -> None:
    """Celery takes this transport for Redis from now on, in this process."""
    for scheme in SCHEMES:
        kombu.transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:LeasedTransport"
        kombu.transport._transport_cache.pop(scheme, None)  # noqa: SLF001 - another application may have used it
