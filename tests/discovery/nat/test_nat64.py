"""NAT64 prefixes: the addresses of RFC 6052 §2.4, and the answers of RFC 7050 §3."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from discovery.nat.nat64 import LENGTHS, WELL_KNOWN, embed, extract, prefix_of

# RFC 6052 §2.4, tables 2 and 3, for 192.0.2.33.
TABLE = [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
]


@pytest.mark.parametrize(("prefix", "address"), TABLE)
def test_the_examples_of_rfc_6052(prefix: str, address: str) -> None:
    made = embed(IPv6Network(prefix), IPv4Address("192.0.2.33"))
    assert made == IPv6Address(address)
    assert extract(IPv6Network(prefix), made) == IPv4Address("192.0.2.33")
    assert extract(IPv6Network(prefix), IPv6Address("2001:db8:ffff:ffff:ff::1")) is None


@pytest.mark.parametrize("prefix", [prefix for prefix, _ in TABLE])
@pytest.mark.parametrize("known", WELL_KNOWN)
def test_a_prefix_is_found_in_the_answer(prefix: str, known: IPv4Address) -> None:
    network = IPv6Network(prefix)
    noise = [IPv6Address("2001:db8::1"), IPv6Address("::1"), IPv6Address("fe80::1")]
    assert prefix_of([*noise, embed(network, known)]) == network


def test_without_dns64_there_is_none() -> None:
    assert prefix_of([]) is None
    assert prefix_of([IPv6Address("2001:db8::1"), IPv6Address("::ffff:192.0.2.1")]) is None


def test_another_length_is_no_prefix() -> None:
    assert set(LENGTHS) == {32, 40, 48, 56, 64, 96}
    with pytest.raises(ValueError, match="no prefix of length 72"):
        embed(IPv6Network("2001:db8::/72"), WELL_KNOWN[0])
