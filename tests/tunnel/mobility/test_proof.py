"""Proof before traffic: BU, AOTC, AOTR, BA between two hosts, with losses and moves (I12–I28)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tunnel.mobility.network import (
    A1,
    A2,
    A_ID,
    B1,
    B_ID,
    UNIX,
    VICTIM,
    Network,
    relay,
)
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    Accepted,
    DropBinding,
    EarlyProof,
    Invited,
    KeepProofs,
    NotRegistered,
    Refused,
    Registered,
    UseEndpoint,
)
from tunnel.mobility.header import Aotc, Aoto, BindingAck, BindingUpdate, Status
from tunnel.mobility.limits import MobilitySettings
from tunnel.mobility.mobile import Phase
from tunnel.mobility.options import NatDetection, first

PROOF = ["a BU 203.0.113.9", "b AOTC 198.51.100.7", "a AOTR 203.0.113.9", "b BA 198.51.100.7"]
AGAIN = ["a BU 203.0.113.9", "b BA 198.51.100.7"]


@pytest.fixture
def net() -> Network:
    network = Network()
    network.host("a", A1)
    network.host("b", B1)
    network.prove_home("a", "b")
    return network


def used(net: Network, name: str = "b") -> list[UseEndpoint | DropBinding]:
    return [one for one in net.said[name] if isinstance(one, UseEndpoint | DropBinding)]


def phase(net: Network) -> Phase:
    return net.hosts["a"].mobile.registrations["b"].phase


def move(net: Network, endpoint: tuple[str, int]) -> None:
    net.where["a"] = endpoint
    net.register("a", "b")


def test_four_messages_prove_an_endpoint_i13(net: Network) -> None:
    net.register("a", "b")
    assert net.run() == PROOF
    assert net.said["b"] == [Accepted("a", A1, False), KeepProofs(), UseEndpoint("a", A1)]
    assert net.said["a"] == [Registered("b", A1, 600)]


def test_traffic_is_taken_from_there_at_once_and_sent_there_after_the_proof_i16(
    net: Network,
) -> None:
    """The sheet's test 3."""
    net.register("a", "b")
    (update,) = net.letters
    net.letters.clear()
    assert net.deliver(update) == [Accepted("a", A1, False)]
    (challenge,) = net.letters
    assert isinstance(challenge.message, Aotc)
    assert used(net) == []
    net.run()
    assert used(net) == [UseEndpoint("a", A1)]


def test_a_move_back_to_where_it_was_proven_takes_two_messages_i19(net: Network) -> None:
    """The sheet's test 4."""
    net.register("a", "b")
    net.run()
    move(net, A2)
    assert len(net.run()) == 4
    move(net, A1)
    assert net.run() == AGAIN
    assert used(net) == [UseEndpoint("a", A1), UseEndpoint("a", A2), UseEndpoint("a", A1)]


def test_until_the_new_endpoint_is_proven_the_old_one_stays(net: Network) -> None:
    net.register("a", "b")
    net.run()
    move(net, A2)
    net.deliver(net.letters.pop())
    binding = net.hosts["b"].correspondent.bindings["a"]
    assert (binding.care_of, binding.used) == (A2, A1)


def test_a_lost_update_is_repeated(net: Network) -> None:
    net.register("a", "b")
    assert net.lose() == PROOF[:1]
    net.wait(1.0)
    assert net.run() == PROOF


def test_a_lost_challenge_brings_another_with_its_own_nonce_i24(net: Network) -> None:
    net.register("a", "b")
    nonces = []
    for _ in range(3):
        net.deliver(net.letters.pop())
        message = net.letters[0].message
        assert isinstance(message, Aotc)
        nonces.append(message.nonce)
        net.lose()
        net.wait(5.0)
        while len(net.letters) > 1:
            net.letters.pop(0)
    assert len(set(nonces)) == 3
    assert net.run() == PROOF


def test_a_lost_acknowledgement_is_asked_for_with_the_same_nonce_i17(net: Network) -> None:
    """The sheet's test 5."""
    net.register("a", "b")
    for _ in range(3):
        net.deliver(net.letters.pop(0))
    assert used(net) == [UseEndpoint("a", A1)]  # b has its proof
    assert net.lose() == PROOF[3:]
    net.wait(1.0)
    assert net.run() == PROOF[2:]
    assert used(net) == [UseEndpoint("a", A1)] and phase(net) is Phase.BOUND


def test_a_correspondent_that_forgot_is_told_anew(net: Network) -> None:
    """No dead end: after three answers to a challenge that nobody remembers, BU again."""
    net.register("a", "b")
    net.deliver(net.letters.pop(0))
    net.deliver(net.letters.pop(0))
    net.lose()
    net.hosts["b"].correspondent.forget("a")
    seen: list[str] = []
    for _ in range(4):
        net.wait(8.0)
        seen += net.run()
    assert seen[:3] == ["a AOTR 203.0.113.9", "a AOTR 203.0.113.9", "a BU 203.0.113.9"]
    assert phase(net) is Phase.BOUND and used(net) == [UseEndpoint("a", A1)]


def test_challenges_that_overtake_each_other_all_count(net: Network) -> None:
    """On a slow path the update is repeated before the first challenge is there."""
    net.register("a", "b")
    net.wait(1.0)
    net.wait(2.0)
    first_, *later = net.letters
    net.letters = []
    for letter in (first_, *later):
        net.deliver(letter)
    assert [str(one) for one in net.letters] == PROOF[1:2] * 3
    net.run()
    assert phase(net) is Phase.BOUND
    assert not net.hosts["b"].refused, "each answer is one to an open test (I26)"


def test_an_answer_to_a_challenge_of_before_a_move_binds_nothing(net: Network) -> None:
    net.register("a", "b")
    net.deliver(net.letters.pop())
    net.deliver(net.letters.pop())
    (late,) = net.letters
    net.letters.clear()
    move(net, A2)
    net.deliver(net.letters.pop())
    net.letters.clear()
    assert net.deliver(late, A1) == [KeepProofs()]  # proven it is, but a is not there
    assert used(net) == []


def test_both_at_once(net: Network) -> None:
    net.register("a", "b")
    net.register("b", "a")
    net.run()
    assert UseEndpoint("a", A1) in net.said["b"] and UseEndpoint("b", B1) in net.said["a"]
    assert Registered("b", A1, 600) in net.said["a"] and Registered("a", B1, 600) in net.said["b"]


# --- Life of a binding -----------------------------------------------------------------------


def test_it_is_refreshed_with_two_messages(net: Network) -> None:
    net.register("a", "b")
    net.run()
    net.wait(450)
    assert net.run() == AGAIN
    assert used(net) == [UseEndpoint("a", A1)]


def test_it_ends_when_nobody_refreshes_it(net: Network) -> None:
    net.register("a", "b")
    net.run()
    net.hosts["a"].forget("b")
    net.wait(600)
    assert used(net) == [UseEndpoint("a", A1), DropBinding("a", "its binding ended")]
    assert net.hosts["b"].next_timer() is None


def test_it_is_taken_back_by_the_relay_when_the_direct_path_is_lost(net: Network) -> None:
    net.register("a", "b")
    net.run()
    way = "b", net.now, relay("b")
    net.take("a", net.hosts["a"].deregister(*way))
    assert net.run() == [f"a BU {relay('b')[0]}", f"b BA {relay('a')[0]}"]
    assert used(net)[-1] == DropBinding("a", "it took its binding back", asked=True)
    assert net.said["a"][-1] == NotRegistered("b", None, 1, "we took it back")


def test_what_was_taken_back_does_not_return_by_a_late_update(net: Network) -> None:
    net.register("a", "b")
    (late,) = net.letters
    net.run()
    net.take("a", net.hosts["a"].deregister("b", net.now))
    net.run()
    net.deliver(late)
    assert used(net)[-1] == DropBinding("a", "it took its binding back", asked=True)
    assert net.hosts["b"].refused == {"sequence": 1}


def test_a_refresh_request_brings_an_update(net: Network) -> None:
    net.register("a", "b")
    net.run()
    commands = net.hosts["a"].mobile.asked("b", B1, net.now)
    net.take("a", net.hosts["a"]._out(commands))
    assert net.run() == AGAIN


def test_a_restarted_mobile_learns_the_sequence_number(net: Network) -> None:
    net.register("a", "b")
    net.run()
    net.hosts["a"].mobile.forget("b")
    net.hosts["a"].mobile._random = lambda count: bytes(count)
    net.register("a", "b")
    assert net.run() == AGAIN * 2
    assert phase(net) is Phase.BOUND


# --- NATs ------------------------------------------------------------------------------------


def test_a_port_that_a_nat_changed_is_bound_as_observed_after_the_test(net: Network) -> None:
    seen = ("198.51.100.7", 61000)
    net.where["a"] = seen
    net.register("a", "b", Claim("198.51.100.7", 4500, "10.0.0.2"))
    assert net.run() == PROOF
    assert used(net) == [UseEndpoint("a", seen)]
    assert net.said["a"] == [Registered("b", ("198.51.100.7", 4500), 600, nat=True)]


def test_a_proof_of_a_nats_endpoint_is_short_and_not_kept_on_disk(net: Network) -> None:
    net.where["a"] = ("198.51.100.7", 61000)
    net.register("a", "b", Claim("198.51.100.7", 4500, "10.0.0.2"))
    net.run()
    proofs = net.hosts["b"].proofs
    assert KeepProofs() not in net.said["b"] and b"61000" not in proofs.dump(UNIX)
    assert proofs.holds("a", net.where["a"], UNIX + 299)
    assert not proofs.holds("a", net.where["a"], UNIX + 300)


def test_a_host_that_does_not_know_its_outer_address_is_bound_as_observed(net: Network) -> None:
    net.where["a"] = ("198.51.100.7", 61000)
    net.register("a", "b", Claim(None, None, "10.0.0.2"))
    assert net.run() == PROOF
    assert used(net) == [UseEndpoint("a", net.where["a"])]


def test_a_wrong_idea_of_the_outer_address_is_given_up_behind_a_nat(net: Network) -> None:
    """What STUN said is old: the correspondent refuses it (174), and what it observes is proven."""
    net.register("a", "b", Claim("192.0.2.250", 4500, "10.0.0.2"))
    assert net.run() == [*AGAIN, *PROOF]
    assert used(net) == [UseEndpoint("a", A1)]


def test_a_host_without_nat_never_gives_its_promise_up(net: Network) -> None:
    """Somebody on the path changes the source: refused, and no second try without the promise."""
    net.register("a", "b")
    net.deliver(net.letters.pop(), VICTIM)
    (answer,) = net.letters
    net.letters.clear()
    assert isinstance(answer.message, BindingAck)
    assert answer.message.status == Status.INVALID_CARE_OF and answer.destination == VICTIM
    net.deliver(replace(answer, destination=A1))  # brought to a all the same
    assert phase(net) is Phase.REFUSED and not net.letters
    assert net.hosts["a"].mobile.registrations["b"].claim.address == A1[0]


# --- Invitations by the home agent -----------------------------------------------------------


def test_an_update_by_the_home_agent_invites_and_binds_nothing(net: Network) -> None:
    net.register("a", "b", invite=True)
    invitation, direct = net.letters
    assert invitation.destination == relay("b") and direct.destination == B1
    net.letters.clear()
    assert net.deliver(invitation) == [Invited("a", A1)]
    assert not net.letters and net.hosts["b"].correspondent.bindings["a"].care_of is None
    net.deliver(direct)
    net.run()
    assert used(net) == [UseEndpoint("a", A1)] and phase(net) is Phase.BOUND


def test_an_invitation_that_is_late_disturbs_nothing(net: Network) -> None:
    net.register("a", "b", invite=True)
    invitation = net.letters.pop(0)
    net.run()
    assert net.deliver(invitation) == []
    assert phase(net) is Phase.BOUND and not net.letters


# --- Early proof (I20, I25, I28; the sheet's test 9) ---------------------------------------------


def early(net: Network, name: str = "a") -> list[bool]:
    return [one.valid for one in net.said[name] if isinstance(one, EarlyProof)]


def open_from(net: Network, endpoint: tuple[str, int]) -> list[str]:
    """``a`` sends an AOTO from another network that it is in, too."""
    home, net.where["a"] = net.where["a"], endpoint
    net.take("a", net.hosts["a"].open("b", B1, net.now))
    ladder = net.run()
    net.where["a"] = home
    return ladder


def test_an_early_proof_makes_a_planned_move_cost_two_messages(net: Network) -> None:
    net.register("a", "b")
    net.run()
    assert open_from(net, A2) == [
        *("a AOTO 203.0.113.9", "b AOTC 198.51.100.8"),
        *("a AOTR 203.0.113.9", "b AOTS 198.51.100.8"),
    ]
    assert early(net) == [True]
    assert used(net) == [UseEndpoint("a", A1)]  # proven, not used
    move(net, A2)
    assert net.run() == ["a BU 203.0.113.9", "b BA 198.51.100.8"]
    assert used(net)[-1] == UseEndpoint("a", A2)


def test_an_aoto_for_what_is_proven_is_answered_at_once(net: Network) -> None:
    net.register("a", "b")
    net.run()
    assert open_from(net, A1) == ["a AOTO 203.0.113.9", "b AOTS 198.51.100.7"]
    assert early(net) == [True]


def test_an_aoto_where_they_are_not_welcome() -> None:
    net = Network(MobilitySettings(early=False))
    net.host("a", A1)
    net.host("b", B1)
    net.register("a", "b")
    net.run()
    assert open_from(net, A2) == ["a AOTO 203.0.113.9", "b AOTS 198.51.100.8"]
    assert early(net) == [False]


def test_an_aoto_of_who_is_not_registered_is_dropped_in_silence_i25(net: Network) -> None:
    said = net.hosts["b"].received("a", A1, header.pack(Aoto(), A_ID, B_ID), net.now, UNIX)
    assert said == [Refused("a", A1, "unregistered")]
    net.register("a", "b")
    assert net.hosts["a"].open("b", B1, net.now) == [], "and we send none before we are"


def test_an_aoto_without_an_answer_is_given_up(net: Network) -> None:
    net.register("a", "b")
    net.run()
    net.take("a", net.hosts["a"].open("b", B1, net.now))
    net.wait(10)
    assert net.lose() == ["a AOTO 203.0.113.9"] * 3
    assert early(net) == [False]


def test_what_the_correspondent_saw_is_in_its_acknowledgement(net: Network) -> None:
    net.register("a", "b")
    for _ in range(3):
        net.deliver(net.letters.pop(0))
    message = net.letters[0].message
    assert isinstance(message, BindingAck)
    assert first(message.options, NatDetection) == NatDetection(0xFFFFFFFF, forced=True)


def test_no_more_than_three_messages_of_a_type_in_a_second(net: Network) -> None:
    for _ in range(10):
        net.register("a", "b", invite=True)
    updates = [one for one in net.letters if isinstance(one.message, BindingUpdate)]
    assert len(updates) == 3
    net.wait(1.0)
    net.lose()
    net.register("a", "b")
    assert net.run()[0] == PROOF[0]
