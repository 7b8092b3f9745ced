"""The peer table: names, and one owner for each host id."""

from __future__ import annotations

from ipaddress import IPv6Address

from tunnel.peers import OWN, SIGNALS, Identity, PeerState, PeerTable, StaticPeer

OURS = IPv6Address("fd00::1")
GATEWAY = StaticPeer("gateway", IPv6Address("fd00::99"), ("198.51.100.9", 4500), b"psk")


def table(limit: int = 10) -> PeerTable:
    identity = Identity(
        name="desk.alice.example", host_id=OURS, label="desk", domain="alice.example", psk=b"k"
    )
    return PeerTable(identity, (GATEWAY,), limit)


def test_a_label_a_full_name_and_a_static_name_are_understood() -> None:
    peers = table()
    assert peers.full_name("Laptop") == "laptop.alice.example"
    assert peers.full_name("Laptop.Alice.Example.") == "laptop.alice.example"
    assert peers.full_name("gateway") == "gateway"
    assert peers.label_of("laptop.alice.example") == "laptop"
    assert peers.label_of("a.b.alice.example") is None
    assert peers.label_of("alice.example") is None
    assert peers.label_of("laptop.malice.example") is None


def test_we_are_not_our_own_peer_and_the_table_is_bounded() -> None:
    peers = table(limit=2)
    assert peers.ensure("DESK") is None
    assert peers.ensure("one") is peers.ensure("ONE")
    assert peers.ensure("two") is None  # the gateway counts too
    assert len(peers) == 2


def test_a_host_id_has_one_owner_and_is_a_ula_that_is_not_ours() -> None:
    peers = table()
    one, two = peers.ensure("one"), peers.ensure("two")
    assert one is not None and two is not None
    assert peers.give(one, IPv6Address("fd00::2")) is None
    for wrong in ("fd00::2", "fd00::99", "2001:db8::1", "fe80::1", str(OURS)):
        assert peers.give(two, IPv6Address(wrong)) is not None
    assert two.host_id is None
    assert peers.owner(IPv6Address("fd00::2")) is one


def test_b54_a_new_host_id_frees_the_old_one() -> None:
    peers = table()
    one, two = peers.ensure("one"), peers.ensure("two")
    assert one is not None and two is not None
    peers.give(one, IPv6Address("fd00::2"))
    peers.give(one, IPv6Address("fd00::3"))
    assert peers.owner(IPv6Address("fd00::2")) is None
    assert peers.give(two, IPv6Address("fd00::2")) is None
    peers.remove(two)
    assert peers.owner(IPv6Address("fd00::2")) is None and peers.labelled("two") is None


def test_a_source_is_known_by_endpoint_else_by_an_address_that_is_one_peers_alone() -> None:
    peers = table()
    one, two = peers.ensure("one"), peers.ensure("two")
    assert one is not None and two is not None
    one.endpoints = (("192.0.2.1", 4500),)
    two.endpoints = (("192.0.2.1", 4501), ("192.0.2.2", 4500))
    assert peers.at(("192.0.2.1", 4500)) is one
    assert peers.at(("192.0.2.1", 9)) is None
    assert peers.at(("192.0.2.2", 9)) is two
    assert one.state is PeerState.IDLE


def test_a_static_peer_has_no_children_for_ourselves_i9() -> None:
    """Neither mobility messages nor a relay SA: both are of the hosts of one account alone."""
    peers = table()
    static, ours = peers.named("gateway"), peers.ensure("laptop")
    assert static is not None and ours is not None
    assert peers.give(ours, IPv6Address("fd00::2")) is None
    for relay in (False, True):
        assert static.policy(OURS, relay=relay).granted == ()
    assert [one.traffic for one in ours.policy(OURS).granted] == [SIGNALS]
    assert ours.policy(OURS, relay=True).granted == OWN, "the home agent alone gives the other one"
