"""Check network addresses: public ones and allowed networks, never metadata services."""

from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

__all__ = ["Address", "Network", "may_connect", "parse_address"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Networks where clouds serve credentials and settings; no setting allows these.
_FORBIDDEN = tuple(
    map(
        ip_network,
        (
            *("169.254.0.0/16", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
            *("fe80::/10", "fd00:ec2::/32", "fd20:ce::/32", "fd00:42::42", "fd00:c1::a9fe:a9fe"),
        ),
    )
)
#: The metadata services among them, also when an IPv6 prefix translates to them.
_METADATA = frozenset(
    int(IPv4Address(host))
    for host in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23"),
        *("168.63.129.16", "100.100.100.200", "192.0.0.192"),
    )
)
#: IANA's registries of special addresses; only newer releases of Python know all of them.
_SPECIAL = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            *("2001::/23", "2001:db8::/32", "3fff::/20"),
        ),
    )
)
#: The only unicast addresses of IPv6 that are assigned.
_GLOBAL = ip_network("2000::/3")

_COMPATIBLE = ip_network("::/96")
_TRANSLATED = ip_network("64:ff9b::/96")
_TRANSLATED_HERE = ip_network("64:ff9b:1::/48")
#: Lengths in bits of the prefixes that embed an IPv4 address (RFC 6052); bits 64 to 71 are not part
#: of it.
_PREFIXES = (32, 40, 48, 56, 64, 96)


def may_connect(address: Address, networks: Iterable[Network] = ()) -> bool:
    """True for a public address or one in `networks`; never for a metadata service.

    An IPv6 address that embeds an IPv4 address is checked by the latter.
    """
    if _is_forbidden(address):
        return False
    embedded = list(_embedded(address))
    if embedded:
        allowed = tuple(networks)
        return all(may_connect(inner, allowed) for inner in embedded)
    return _is_public(address) or any(address in network for network in networks)


def parse_address(text: str) -> Address:
    """Parse an address that a resolver returned, without its zone."""
    return ip_address(text.partition("%")[0])


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL:
        return False
    return not any(address in network for network in _SPECIAL)


def _is_forbidden(address: Address) -> bool:
    if any(address in network for network in _FORBIDDEN):
        return True
    if isinstance(address, IPv4Address):
        return False
    hidden = [_translated(address, bits) for bits in _PREFIXES]
    if any(int(inner) in _METADATA for inner in hidden):
        return True
    # The prefix that a network uses below the one for local use is unknown.
    return address in _TRANSLATED_HERE and any(map(_is_forbidden, hidden[2:]))


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address embeds by its format."""
    if isinstance(address, IPv4Address):
        return
    low = int(address) & 0xFFFF_FFFF
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _TRANSLATED or (address in _COMPATIBLE and low > 1):
        yield IPv4Address(low)
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    elif (int(address) >> 32) & 0xFDFF_FFFF == 0x5EFE:  # ISATAP
        yield IPv4Address(low)


def _translated(address: IPv6Address, bits: int) -> IPv4Address:
    value = int(address)
    if bits == 96:
        return IPv4Address(value & 0xFFFF_FFFF)
    # The eight bits from 64 on are not part of the IPv4 address.
    joined = (value >> 64) << 56 | (value & (1 << 56) - 1)
    return IPv4Address((joined >> (120 - bits - 32)) & 0xFFFF_FFFF)
