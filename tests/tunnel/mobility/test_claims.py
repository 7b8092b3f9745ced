"""What a binding update says of its sender's endpoint, and what that is worth (I12)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from tunnel.mobility.claims import Claim
from tunnel.mobility.options import AlternateCareOf, Ipv4CareOf, Option, Port

OUTER, INNER, SIX = "198.51.100.7", "10.0.0.2", "2001:db8::7"
ALTERNATE = AlternateCareOf(IPv6Address("::ffff:198.51.100.7"))


@pytest.mark.parametrize(
    ("claim", "options"),
    [
        (Claim(), ()),
        (Claim(OUTER), (ALTERNATE,)),
        (Claim(SIX), (AlternateCareOf(IPv6Address(SIX)),)),
        (Claim(port=4500), (Port(4500),)),
        (Claim(local=INNER), (Ipv4CareOf(IPv4Address(INNER)),)),
        (
            Claim(OUTER, 61000, INNER),
            (ALTERNATE, Port(61000), Ipv4CareOf(IPv4Address(INNER))),
        ),
    ],
)
def test_each_part_has_an_option_of_its_own(claim: Claim, options: tuple[Option, ...]) -> None:
    assert claim.options == options
    assert Claim.read(options) == claim
    assert Claim.read(options[::-1]) == claim


def test_of_two_options_the_first_counts() -> None:
    assert Claim.read((Port(1), Port(2))) == Claim(port=1)


def test_a_host_that_is_seen_as_it_is_says_so_with_ipv4() -> None:
    """RFC 5555 §3.1.2 has an option for IPv4 alone."""
    assert Claim.at((OUTER, 4500)) == Claim(OUTER, 4500, OUTER)
    assert Claim.at((OUTER, 61000), INNER) == Claim(OUTER, 61000, INNER)
    assert Claim.at((SIX, 4500)) == Claim(SIX, 4500, None)


@pytest.mark.parametrize(
    ("claim", "passed"),
    [
        (Claim(), False),
        (Claim(OUTER, 4500, OUTER), False),
        (Claim(OUTER), False),
        (Claim(local=OUTER), False),
        (Claim(port=4500), False),
        (Claim("198.51.100.8"), True),
        (Claim(OUTER, 61000), True),
        (Claim(OUTER, 4500, INNER), True),
        (Claim(local=INNER), True),
    ],
)
def test_a_nat_is_told_by_whatever_it_changed(claim: Claim, passed: bool) -> None:
    """RFC 5555 §4.1, §4.2: also where the address that it gave is the one that was promised."""
    assert claim.passed_nat((OUTER, 4500)) is passed


@pytest.mark.parametrize(
    ("claim", "may_be"),
    [
        (Claim(OUTER, 4500, INNER), True),
        (Claim(OUTER, 4500, OUTER), False),
        (Claim(SIX, 4500), False),
        (Claim(local=INNER), False),
        (Claim(), False),
    ],
)
def test_only_a_nats_address_is_ever_taken_back(claim: Claim, may_be: bool) -> None:
    """Else who changes the source on the way had his will (I18)."""
    assert claim.may_be_wrong is may_be
    assert claim.without_address() == Claim(None, claim.port, claim.local)


def test_a_promise_is_of_the_address() -> None:
    """The port may be a NAT's; without a promise any source will do, to be proven."""
    assert Claim(OUTER, 4500).holds((OUTER, 61000))
    assert not Claim(OUTER, 4500).holds(("198.51.100.8", 4500))
    assert Claim(None, 4500, INNER).holds(("198.51.100.8", 1))


def test_an_endpoint_is_an_address_and_a_port() -> None:
    assert Claim(OUTER, 4500).endpoint == (OUTER, 4500)
    assert Claim(OUTER).endpoint is None and Claim(port=4500).endpoint is None
