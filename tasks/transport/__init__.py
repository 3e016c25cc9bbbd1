"""Delivery through Redis without loss: what a worker takes is recorded as its own in the same step.

`channel` is the transport, `deliveries` what this worker holds, `recovery` what the upkeep process does,
`copies` finds messages that were sent twice.
"""

from tasks.transport.channel import LeasedTransport, is_redis, use_leased_transport
from tasks.transport.copies import held_copies
from tasks.transport.deliveries import deliveries
from tasks.transport.recovery import MessageLeases

__all__ = ["LeasedTransport", "MessageLeases", "deliveries", "held_copies", "is_redis", "use_leased_transport"]
