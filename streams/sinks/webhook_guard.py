"""Server-side request forgery: a webhook's URL comes from outside, and must not reach what is inside.

The check is made on the address of the socket that is about to be connected, after name resolution. So it holds for
every spelling of an address and for a name that changes between look-up and connect.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Begins the message of every refusal, since aiohttp hides the exception's type among those of other addresses.
REFUSED: Final = "webhook address refused"

#: Ranges that are global by the book but lead somewhere else: into IPv4 by a translator or a tunnel of the network.
_TUNNELS: Final = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b:1::/48", "2001::/32", "2002::/16", "::/96", "fec0::/10")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
#: 100.64/10 carrier-grade NAT, 192.0.0/24 protocol assignments, 198.18/15 benchmarks, 240/4 reserved.
_NOT_GLOBAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4")
)


class AddressRefusedError(OSError):
    """The address may not be called; an OSError, so that HTTP clients treat it as a failed connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``loopback`` is allowed in development only; ``networks`` are private ranges admitted on purpose."""

    loopback: bool
    networks: tuple[Network, ...] = ()


def admitted(wanted: Sequence[str], allowed: Sequence[str]) -> tuple[Network, ...]:
    """The networks of a subscription that the worker's settings allow too: it must not admit itself."""
    outer = [ipaddress.ip_network(text) for text in allowed]
    inner = [ipaddress.ip_network(text) for text in wanted]
    return tuple(network for network in inner if any(_within(network, one) for one in outer))


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def refusal(text: str, policy: Policy) -> str | None:
    """Why the address ``text`` may not be called under ``policy``; None if it may."""
    address = _real(ipaddress.ip_address(text.partition("%")[0]))
    if policy.loopback and address.is_loopback:
        return None
    if any(address in network for network in policy.networks if network.version == address.version):
        return None
    for name, matches in (
        ("loopback", address.is_loopback),
        ("link-local", address.is_link_local),
        ("multicast", address.is_multicast),
        ("unspecified", address.is_unspecified),
        ("translated", any(address in network for network in _TUNNELS if network.version == address.version)),
        ("reserved", any(address in network for network in _NOT_GLOBAL if network.version == address.version)),
        ("private", not address.is_global),
    ):
        if matches:
            return f"{address} is {name}"
    return None


def _real(address: Address) -> Address:
    """The IPv4 address inside a mapped or NAT64 one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(address.packed[-4:])
    return address


def socket_factory(policy: Policy) -> Callable[[Any], socket.socket]:
    """For aiohttp's TCPConnector: makes the socket for one resolved address, or raises :class:`AddressRefusedError`."""

    def make(address_info: Any) -> socket.socket:
        family, kind, protocol, _, where = address_info
        reason = refusal(str(where[0]), policy)
        if reason is not None:
            raise AddressRefusedError(errno.EACCES, f"{REFUSED}: {reason}; admit it with allow_networks if it is meant")
        return socket.socket(family, kind, protocol)

    return make
