"""Public addresses may be connected to, opened ones too, metadata services in no notation."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nightshift.stores.files.networks import may_connect

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
#: Of AWS, its containers and pods, Google, Azure, Alibaba, Oracle, Tencent, Scaleway.
METADATA = [
    *("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23", "169.254.42.42"),
    *("168.63.129.16", "100.100.100.200", "192.0.0.192"),
]
METADATA_6 = [
    *("fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::253", "fd20:ce::254", "fd00:42::42"),
    *("fd00:c1::a9fe:a9fe", "fe80::a9fe:a9fe", "fe80::1", "febf::1"),
]


def notations(host):
    """IPv6 addresses that lead to an IPv4 one somewhere."""
    value = int(IPv4Address(host))
    translated = int(IPv6Address("64:ff9b::"))
    local = int(IPv6Address("64:ff9b:1::"))
    high, low = value >> 16, value & 0xFFFF
    return {
        "mapped": IPv6Address(0xFFFF << 32 | value),
        "compatible": IPv6Address(value),
        "6to4": IPv6Address(0x2002 << 112 | value << 80 | 1),
        "teredo client": IPv6Address(0x20010000 << 96 | 0x01010101 << 64 | value ^ 0xFFFF_FFFF),
        "teredo server": IPv6Address(0x20010000 << 96 | value << 64 | 0x01010101 ^ 0xFFFF_FFFF),
        "nat64": IPv6Address(translated | value),
        "isatap": IPv6Address(0x2A00 << 112 | 0x5EFE << 32 | value),
        "isatap of a public one": IPv6Address(0x2A00 << 112 | 0x02005EFE << 32 | value),
        "local nat64 of 48 bits": IPv6Address(local | high << 64 | low << 40),
        "local nat64 of 56 bits": IPv6Address(
            local | (value >> 24) << 64 | (value & 0xFF_FFFF) << 32
        ),
        "local nat64 of 64 bits": IPv6Address(local | value << 24),
        "local nat64 of 96 bits": IPv6Address(local | value),
    }


@pytest.mark.parametrize("host", [*METADATA, *METADATA_6])
def test_metadata_services_are_never_reached(host):
    address = ip_address(host)

    assert not may_connect(address)
    assert not may_connect(address, EVERYTHING)
    assert not may_connect(address, [ip_network(host)])


@pytest.mark.parametrize("name", notations("1.1.1.1"))
@pytest.mark.parametrize("host", METADATA)
def test_nor_in_any_notation_that_carries_their_address(host, name):
    address = notations(host)[name]

    assert not may_connect(address)
    assert not may_connect(address, EVERYTHING)
    assert not may_connect(address, [ip_network(address)])


@pytest.mark.parametrize("bits", [32, 40, 48, 56, 64, 96])
def test_nor_by_a_prefix_of_translation_that_the_network_chose_itself(bits):
    text = {
        32: "fd12:3456:a9fe:a9fe::",
        40: "fd12:3456:78a9:fea9:fe::",
        48: "fd12:3456:789a:a9fe:a9:fe00::",
        56: "fd12:3456:789a:bca9:fe:a9fe::",
        64: "fd12:3456:789a:bcde:a9:fea9:fe00::",
        96: "fd12:3456:789a:bcde::a9fe:a9fe",
    }[bits]

    assert not may_connect(ip_address(text), [ip_network("fd12:3456::/32")])


@pytest.mark.parametrize(
    "host",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.9.9.9"),
        *("172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.19.0.1"),
        *("198.51.100.9", "203.0.113.9", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::2", "100::1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "ff0e::1"),
        *("64:ff9b:1::101:101", "2001::1", "2001:2::1", "2001:20::1", "2001:db8::1", "3fff::1"),
        *("5f00::1", "4000::1", "2002:a00:1::1", "64:ff9b::a00:1", "::ffff:10.0.0.1", "::10.0.0.1"),
    ],
)
def test_what_is_not_globally_routable_must_be_opened(host):
    assert not may_connect(ip_address(host))


@pytest.mark.parametrize(
    "host",
    ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::200e",
     "64:ff9b::101:101", "::ffff:1.1.1.1", "2001:4860:4860::8888"],
)  # fmt: skip
def test_public_addresses_need_no_opening(host):
    assert may_connect(ip_address(host))


def test_an_opened_network_is_reached_and_its_neighbours_are_not():
    opened = [ip_network("10.1.0.0/16"), ip_network("fd12:3456::/32"), ip_network("127.0.0.0/8")]

    reached = ["10.1.2.3", "fd12:3456::7", "::ffff:10.1.2.3", "64:ff9b::a01:203", "127.0.0.1"]
    assert all(may_connect(ip_address(host), opened) for host in reached)
    others = ["10.2.0.1", "fd12:3457::7", "::ffff:10.2.0.1", "64:ff9b::a02:1", "::1"]
    assert not any(may_connect(ip_address(host), opened) for host in others)


@given(st.ip_addresses())
@example(ip_address("::"))
def test_what_is_reached_without_opening_is_global_for_python_too(address):
    if may_connect(address):
        carried = address.version == 6 and (address.sixtofour or address.ipv4_mapped)
        assert carried or address.is_global
        assert not address.is_multicast
