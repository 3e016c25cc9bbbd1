"""Which addresses a workflow may call: those of the public internet, and networks that the operator names. Pure.

`ipaddress` alone does not tell: its `is_global` is true for multicast, for ranges that carry an IPv4 address inside
(NAT64, 6to4), and, until 2024's releases of Python, for some special ranges. So the ranges stand here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from parallelizer.actions.http.errors import AddressRefused

Network = IPv4Network | IPv6Network

#: IANA's special-purpose registry of IPv4, all of it; multicast and class E; and one address that is public by its
#: number but leads into the host under a virtual machine (Microsoft: "What is IP address 168.63.129.16?").
_REFUSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
)  # fmt: skip
#: All that is assigned to hosts of the internet (RFC 4291). What is outside: loopback, link-local, unique local and
#: site-local addresses, multicast, IPv4 inside IPv6, NAT64 (64:ff9b::/96, 64:ff9b:1::/48).
_UNICAST_V6 = IPv6Network("2000::/3")
#: Inside it: IETF protocols with Teredo, documentation, 6to4.
_REFUSED_V6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16"))


def check_addresses(host: str, addresses: Sequence[str], allowed: Sequence[Network]) -> None:
    """Let pass a host all of whose addresses may be called.

    Raises: AddressRefused: one of them may not; the message names it and the setting.
    """
    for text in addresses:
        if not may_be_called(text, allowed):
            leads = "is" if text == host else f"leads to {text}, which is"
            raise AddressRefused(
                f"{host} {leads} not an address of the public internet, and http.request calls no others; "
                "where this one is meant, the operator allows its network in HTTP_ALLOWED_NETWORKS"
            )


def may_be_called(text: str, allowed: Sequence[Network]) -> bool:
    """Whether an address is public, or in one of the networks."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # the kernel connects to this one
    if any(address in network for network in allowed):
        return True
    if isinstance(address, IPv4Address):
        refused = any(address in network for network in _REFUSED_V4)
    else:
        refused = address not in _UNICAST_V6 or any(address in network for network in _REFUSED_V6)
    return not refused and address.is_global and not address.is_multicast


@lru_cache(maxsize=8)
def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """The networks of HTTP_ALLOWED_NETWORKS, which have been checked when the settings were read."""
    return tuple(ip_network(text) for text in texts)
