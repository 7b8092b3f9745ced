"""A peer, or somebody between, wants traffic to go elsewhere: nothing changes, counters tell."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutants
from tests.tunnel.mobility.network import (
    A1,
    A2,
    A_ID,
    B1,
    B_ID,
    H1,
    UNIX,
    VICTIM,
    Letter,
    Network,
    relay,
)
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import Accepted, Invited, UseEndpoint
from tunnel.mobility.header import (
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingError,
    BindingUpdate,
    Message,
    RefreshRequest,
)
from tunnel.mobility.home import HomeAgent
from tunnel.mobility.mobile import Phase

HERE = Claim.at(A1).options


@pytest.fixture
def net() -> Network:
    network = Network()
    network.host("a", A1)
    network.host("b", B1)
    network.prove_home("a", "b")
    return network


@pytest.fixture
def bound(net: Network) -> Network:
    """``a`` is registered with ``b``, at :data:`A1`."""
    net.register("a", "b")
    net.run()
    net.now += 10
    return net


def say(net: Network, message: Message, source: tuple[str, int] = A1) -> list[object]:
    """``b`` hears this of ``a``; its machines' answers stay in ``net.letters``."""
    letter = Letter("a", "b", source, B1, header.pack(message, A_ID, B_ID))
    return list(net.deliver(letter))


def where(net: Network) -> tuple[str, int] | None:
    binding = net.hosts["b"].correspondent.bindings.get("a")
    return None if binding is None else binding.used


def last(net: Network) -> int:
    return net.hosts["b"].correspondent.bindings["a"].sequence


def test_an_update_that_names_another_address_than_it_came_from_binds_nothing(
    net: Network,
) -> None:
    """The sheet's test 1 (I12)."""
    say(net, BindingUpdate(1, 600, HERE), VICTIM)
    assert net.hosts["b"].refused == {"care_of": 1}
    assert where(net) is None and not any(isinstance(one, Accepted) for one in net.said["b"])


def test_a_victim_gets_one_challenge_and_no_data(net: Network) -> None:
    """The sheet's test 2 (I18): a compromised host says that it is where a victim is, and is able
    to send from there."""
    say(net, BindingUpdate(1, 600, Claim.at(VICTIM).options), VICTIM)
    assert [str(one) for one in net.letters] == ["b AOTC 192.0.2.66"]
    net.wait(600)
    assert len(net.letters) == 1
    assert not any(isinstance(one, UseEndpoint) for one in net.said["b"])


def test_a_flood_of_updates_for_a_victim_is_three_challenges_a_second(net: Network) -> None:
    for number in range(1, 1001):
        say(net, BindingUpdate(number, 600, Claim.at(VICTIM).options), VICTIM)
    assert len(net.letters) == 3
    assert net.hosts["b"].refused["flood"] == 997


def test_many_peers_together_aim_a_hundred_challenges_a_second_at_most() -> None:
    from tunnel.mobility.correspondent import Correspondent
    from tunnel.mobility.proofs import Proofs

    one = Correspondent(lambda count: bytes(count), Proofs())
    update = BindingUpdate(1, 600, Claim.at(VICTIM).options)
    said = [
        command
        for number in range(500)
        for command in one.update(f"p{number}", update, VICTIM, ("fd00::1", 500), 1.0, UNIX)
    ]
    assert sum(type(command).__name__ == "Send" for command in said) == 100


@pytest.mark.parametrize("wrong", [b"\xff" * 8, bytes(8)])
def test_a_wrong_nonce_proves_nothing_i27(net: Network, wrong: bytes) -> None:
    """The sheet's test 10."""
    say(net, BindingUpdate(1, 600, HERE))
    say(net, Aotr(wrong))
    assert where(net) is None and net.hosts["b"].refused == {"nonce": 1}


def test_the_right_nonce_from_another_address_proves_nothing_i27(net: Network) -> None:
    """The sheet's test 10: not there, and not where it came from."""
    say(net, BindingUpdate(1, 600, HERE))
    challenge = net.letters.pop().message
    assert isinstance(challenge, Aotc)
    for source in (A2, VICTIM, (A1[0], 4501), relay("a")):
        say(net, Aotr(challenge.nonce), source)
    assert where(net) is None and net.hosts["b"].refused == {"nonce": 4}
    say(net, Aotr(challenge.nonce), A1)
    assert where(net) == A1


def test_a_nonce_is_worth_nothing_after_a_minute(net: Network) -> None:
    say(net, BindingUpdate(1, 600, HERE))
    challenge = net.letters.pop().message
    assert isinstance(challenge, Aotc)
    net.now += 60
    say(net, Aotr(challenge.nonce))
    assert where(net) is None and net.hosts["b"].refused == {"nonce": 1}


def test_a_nonce_of_another_peer_is_worth_nothing(net: Network) -> None:
    net.host("h", H1)
    say(net, BindingUpdate(1, 600, HERE))
    challenge = net.letters.pop().message
    assert isinstance(challenge, Aotc)
    forged = header.pack(Aotr(challenge.nonce), net.hosts["h"]._home, B_ID)
    net.deliver(Letter("h", "b", A1, B1, forged))
    assert where(net) is None and "h" not in net.hosts["b"].correspondent.bindings


def test_replayed_and_old_updates_move_nothing(bound: Network) -> None:
    for back in (0, 1, 100, 32768):
        say(bound, BindingUpdate((last(bound) - back) % 65536, 600, Claim.at(A2).options), A2)
        bound.now += 1
    assert where(bound) == A1 and bound.hosts["b"].refused == {"sequence": 4}
    answers = [one.message for one in bound.letters]
    assert {one.sequence for one in answers if isinstance(one, BindingAck)} == {last(bound)}


def test_who_was_refused_for_his_number_used_none_up(bound: Network) -> None:
    before = last(bound)
    say(bound, BindingUpdate((before + 5) % 65536, 600, HERE), VICTIM)  # care_of
    assert last(bound) == before


def test_forged_acknowledgements_register_nothing(net: Network) -> None:
    net.register("b", "a")
    net.letters.clear()
    number = net.hosts["b"].mobile.registrations["a"].sequence
    for wrong in (number - 1, number + 1, number + 32768):
        say(net, BindingAck(0, wrong % 65536, 600))
    say(net, BindingAck(135, (number - 1) % 65536, 0))
    assert net.hosts["b"].mobile.registrations["a"].phase is Phase.SAID
    assert net.hosts["b"].refused == {"unasked": 4}


def test_answers_to_nothing_are_not_heeded(net: Network) -> None:
    unasked: list[Message] = [Aotc(bytes(8)), Aots(1), BindingAck(0, 1, 600)]
    for message in (*unasked, RefreshRequest(), BindingError(1, B_ID), BindingError(2, B_ID)):
        say(net, message)
    assert net.hosts["b"].refused == {"unasked": 6} and not net.letters


def test_an_aoto_of_who_is_not_registered_i25(net: Network) -> None:
    say(net, Aoto())
    assert net.hosts["b"].refused == {"unregistered": 1} and not net.letters


def test_forged_relay_traffic_invites_to_a_few_octets_only(net: Network) -> None:
    """Whoever speaks through the home agent makes no binding, whatever he names."""
    for number in range(1, 20):
        say(net, BindingUpdate(number, 600, Claim.at(VICTIM).options), relay("a"))
    assert set(net.said["b"]) == {Invited("a", VICTIM)}
    assert where(net) is None and not net.letters
    say(net, BindingUpdate(20, 600, Claim.at(("224.0.0.1", 4500)).options), relay("a"))
    assert net.hosts["b"].refused == {"not_unicast": 1}


@pytest.mark.parametrize("nowhere", ["224.0.0.1", "0.0.0.0", "255.255.255.255", "ff02::1", "::1"])
def test_nobody_is_bound_where_nobody_can_be(net: Network, nowhere: str) -> None:
    source = (nowhere, 4500)
    say(net, BindingUpdate(1, 600, Claim.at(source).options), source)
    assert net.hosts["b"].refused == {"not_unicast": 1} and not net.letters


def test_a_home_registration_by_the_relay_is_none(net: Network) -> None:
    """Else the home agent would send to itself what is for that host."""
    net.host("h", H1, HomeAgent())
    update = header.pack(BindingUpdate(1, 600, home=True), A_ID, net.hosts["h"]._home)
    net.deliver(Letter("a", "h", relay("a"), H1, update))
    agent = net.hosts["h"].home_agent
    assert agent is not None and not agent.bindings
    assert net.hosts["h"].refused == {"home_registration": 1}


def test_a_stranger_is_not_heard(net: Network) -> None:
    host = net.hosts["b"]
    octets = header.pack(BindingUpdate(1, 600), A_ID, B_ID)
    said = host.received("nobody", A1, octets, net.now, UNIX)
    assert host.refused == {"stranger": 1} and len(said) == 1


def test_thirty_messages_a_second_are_looked_at(net: Network) -> None:
    for _ in range(1000):
        net.hosts["b"].received("a", A1, b"junk", net.now, UNIX)
    assert net.hosts["b"].refused == {"malformed": 30, "flood": 970}


def test_unknown_types_are_told_so_three_times_a_second(net: Network) -> None:
    plain = bytes.fromhex("3b00010000000000")
    check = header._checksum(plain, A_ID, B_ID).to_bytes(2)
    for _ in range(20):
        net.hosts["b"].received("a", A1, plain[:4] + check + plain[6:], net.now, UNIX)
    said = net.hosts["b"].received("a", A1, plain[:4] + check + plain[6:], net.now + 1, UNIX)
    assert net.hosts["b"].refused == {"unrecognised": 21}
    assert len(said) == 2  # the refusal, and BE 2 (RFC 6275 §9.2)


def test_memory_is_bounded_whatever_a_peer_says(net: Network) -> None:
    chance = itertools.cycle([A1, A2, VICTIM])
    for number in range(1, 3001):
        source = next(chance)
        net.now += 0.4
        say(net, BindingUpdate(number, 600, Claim.at(source).options), source)
        for letter in net.letters:
            if isinstance(letter.message, Aotc):
                say(net, Aotr(letter.message.nonce), letter.destination)
                say(net, Aoto(), (source[0], 1 + number))
        net.letters.clear()
    host = net.hosts["b"]
    assert len(host.correspondent.bindings) == 1
    assert len(host.correspondent.bindings["a"].tests) <= 4
    assert len(host.proofs) <= 16


SEEDS = [
    *(header.pack(one, A_ID, B_ID) for one in (Aoto(), Aotc(bytes(8)), Aotr(bytes(8)), Aots(1))),
    header.pack(BindingUpdate(9, 600, HERE), A_ID, B_ID),
    header.pack(BindingUpdate(9, 0), A_ID, B_ID),
    header.pack(BindingAck(0, 2, 600), A_ID, B_ID),
    header.pack(BindingError(2, B_ID), A_ID, B_ID),
]
SOURCES = [A1, A2, VICTIM, relay("a"), ("2001:db8::1", 4500)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_nobody_is_anywhere_without_a_proof_whatever_he_says(seed: int) -> None:
    """Octets at random, with a right checksum, from anywhere: no answer to a challenge among them
    is right, so that nothing is ever sent but small answers."""
    net = Network()
    net.host("a", A1)
    net.host("b", B1)
    net.register("b", "a")
    for number, octets in enumerate(mutants(SEEDS, 60, seed)):
        if len(octets) >= 8:
            check = header._checksum(octets[:4] + bytes(2) + octets[6:], A_ID, B_ID)
            octets = octets[:4] + check.to_bytes(2) + octets[6:]
        source = SOURCES[(seed + number) % len(SOURCES)]
        net.now += 0.05
        net.deliver(Letter("a", "b", source, B1, octets))
        assert not any(isinstance(one, UseEndpoint) for one in net.said["b"])
        assert all(len(one.octets) <= 64 for one in net.letters)
