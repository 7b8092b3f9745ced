"""The home address is proven before a binding is made, once in each mobility SA (I10, I21, I22)."""

from __future__ import annotations

import pytest

from tests.tunnel.mobility.network import A1, A2, A_ID, B1, B_ID, UNIX, Letter, Network, relay
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    Accepted,
    DropBinding,
    HomeProven,
    HomeSilent,
    KeepProofs,
    Refused,
    Registered,
    UseEndpoint,
)
from tunnel.mobility.header import Aotc, Aoto, Aotr, BindingUpdate
from tunnel.mobility.mobile import Phase

HOME_A, HOME_B = relay("a")[0], relay("b")[0]
ASKED = ["b AOTC 198.51.100.7", f"b AOTC {HOME_A}"]
ANSWERS = ["a AOTR 203.0.113.9", f"a AOTR {HOME_B}"]
BOUND = [UseEndpoint("a", A1)]


@pytest.fixture
def net() -> Network:
    network = Network()
    network.host("a", A1)
    network.host("b", B1)
    return network


def used(net: Network) -> list[object]:
    return [one for one in net.said["b"] if isinstance(one, UseEndpoint | DropBinding)]


def phase(net: Network) -> Phase:
    return net.hosts["a"].mobile.registrations["b"].phase


def home_letters(net: Network) -> list[Letter]:
    """What is on its way by the home agent; it is not on its way any more."""
    found = [one for one in net.letters if one.destination in (relay("a"), relay("b"))]
    net.letters = [one for one in net.letters if one not in found]
    return found


def without_home_agent(net: Network, seconds: float) -> None:
    """So long, nothing arrives by the home agent."""
    end = net.now + seconds
    while net.now < end:
        while net.letters:
            home_letters(net)
            if net.letters:
                net.deliver(net.letters.pop(0))
        net.wait(0.5)


def test_both_addresses_are_asked_at_once_and_the_binding_waits_for_both_i22(
    net: Network,
) -> None:
    net.register("a", "b")
    assert net.run() == ["a BU 203.0.113.9", *ASKED, *ANSWERS, "b BA 198.51.100.7"]
    proven = [HomeProven("a"), KeepProofs(), *BOUND]
    assert net.said["b"] == [Accepted("a", A1, False), *proven]
    assert net.said["a"] == [Registered("b", A1, 600)]


@pytest.mark.parametrize("first", [0, 1])
def test_whichever_answer_comes_first_the_other_one_decides(net: Network, first: int) -> None:
    net.register("a", "b")
    for _ in range(3):
        net.deliver(net.letters.pop(0))
    one, other = net.letters.pop(first), net.letters.pop()
    net.deliver(one)
    assert used(net) == [] and not net.letters, "no traffic, no BA"
    net.deliver(other)
    assert used(net) == BOUND
    assert net.run() == ["b BA 198.51.100.7"]


def test_where_the_care_of_address_was_proven_before_the_home_address_alone_is_asked(
    net: Network,
) -> None:
    net.hosts["b"].proofs.add("a", A1, UNIX)
    net.register("a", "b")
    ladder = ["a BU 203.0.113.9", ASKED[1], ANSWERS[1], "b BA 198.51.100.7"]
    assert net.run() == ladder
    assert used(net) == BOUND


def test_a_peer_that_does_not_answer_at_home_gets_no_binding_i22(net: Network) -> None:
    """A stolen credential, used from elsewhere: who holds the home registration hears nothing of
    the tests, or cannot read them."""
    net.register("a", "b")
    without_home_agent(net, 60)
    assert used(net) == [] and phase(net) is not Phase.BOUND
    assert HomeSilent("a", before=False) in net.said["b"]
    assert net.hosts["b"].refused["home"] >= 1
    assert not net.hosts["b"].proofs.holds("a", A1, UNIX), "nothing of it is kept"


def test_no_early_proof_of_who_is_not_proven_at_home(net: Network) -> None:
    net.register("a", "b")
    for _ in range(2):
        net.deliver(net.letters.pop(0))
    net.letters.clear()
    octets = header.pack(Aoto(), A_ID, B_ID)
    net.deliver(Letter("a", "b", A2, B1, octets))
    assert net.hosts["b"].refused["unregistered"] == 1 and not net.letters


def test_the_nonce_for_the_care_of_address_is_none_for_the_home_address(net: Network) -> None:
    """Nor the other way round: who receives at one of them alone proves nothing more."""
    net.register("a", "b")
    net.deliver(net.letters.pop(0))
    care_of, home = (one.message for one in net.letters)
    assert isinstance(care_of, Aotc) and isinstance(home, Aotc) and care_of.nonce != home.nonce
    net.letters.clear()
    for nonce, source in ((care_of.nonce, relay("a")), (home.nonce, A1), (home.nonce, A2)):
        net.deliver(Letter("a", "b", source, B1, header.pack(Aotr(nonce), A_ID, B_ID)))
    assert net.hosts["b"].refused["nonce"] == 3
    assert used(net) == [] and not net.letters


def test_an_answer_at_home_says_nothing_about_the_address_that_is_registered(
    net: Network,
) -> None:
    """The challenge that reaches the home address first does not end the mobile's own waiting."""
    net.register("a", "b")
    net.deliver(net.letters.pop(0))
    (at_home,) = home_letters(net)
    net.letters.clear()
    net.deliver(at_home)
    assert phase(net) is Phase.SAID
    net.run()
    net.wait(1.0)
    assert net.run()[0] == "a BU 203.0.113.9" and phase(net) is Phase.BOUND


@pytest.mark.parametrize("lost", range(6))
def test_each_message_may_be_lost(net: Network, lost: int) -> None:
    net.register("a", "b")
    for number in range(6):
        letter = net.letters.pop(0)
        if number != lost:
            net.deliver(letter)
        if not net.letters:
            break
    for _ in range(8):
        net.run()
        net.wait(1.0)
    assert used(net) == BOUND and phase(net) is Phase.BOUND


def test_a_late_answer_counts_and_a_second_one_changes_nothing(net: Network) -> None:
    net.register("a", "b")
    net.deliver(net.letters.pop(0))
    (at_home,) = home_letters(net)
    net.run()
    net.hosts["a"].mobile.rest("b")
    net.wait(10)
    assert net.said["b"][-1] == HomeSilent("a", before=False)
    net.lose()
    net.deliver(at_home)
    (answer,) = net.letters
    net.run()
    assert used(net) == BOUND
    said = len(net.said["b"])
    assert net.deliver(answer) == [] and len(net.said["b"]) == said and not net.letters


def test_a_home_agent_that_returns_ends_the_waiting(net: Network) -> None:
    net.register("a", "b")
    without_home_agent(net, 45)
    assert used(net) == []
    for _ in range(40):
        net.run()
        net.wait(1.0)
    assert used(net) == BOUND and phase(net) is Phase.BOUND


def test_a_mobile_that_waits_says_less_and_less(net: Network) -> None:
    """No chatter without end where the home agent is away: of ten minutes, the last five."""
    net.register("a", "b")
    without_home_agent(net, 300)
    sent: list[str] = []
    deliver = net.deliver
    net.deliver = lambda letter, source=None: sent.append(str(letter)) or deliver(letter, source)
    without_home_agent(net, 300)
    assert len(sent) < 60
    assert sent.count("a BU 203.0.113.9") < 12


def test_a_move_while_the_home_agent_is_away_needs_no_other_proof(net: Network) -> None:
    net.register("a", "b")
    net.run()
    net.where["a"] = A2
    net.register("a", "b")
    without_home_agent(net, 3)
    assert used(net)[-1] == UseEndpoint("a", A2) and phase(net) is Phase.BOUND


# --- Rekeys ------------------------------------------------------------------------------------


def test_each_rekey_is_a_new_live_proof_i21(net: Network) -> None:
    net.register("a", "b")
    net.run()
    net.take("b", net.hosts["b"].rekeyed("a", net.now))
    assert net.run() == [ASKED[1], ANSWERS[1]]
    assert net.said["b"].count(HomeProven("a")) == 2 and used(net) == BOUND


def test_no_answer_after_a_rekey_takes_no_binding_away_i21(net: Network) -> None:
    net.register("a", "b")
    net.run()
    net.take("b", net.hosts["b"].rekeyed("a", net.now))
    without_home_agent(net, 30)
    assert net.said["b"][-1] == HomeSilent("a", before=True)
    assert net.hosts["b"].refused == {"home": 1} and used(net) == BOUND
    net.where["a"] = A2
    net.register("a", "b")
    without_home_agent(net, 3)
    assert used(net)[-1] == UseEndpoint("a", A2)


def test_an_answer_of_before_the_rekey_is_none_after_it(net: Network) -> None:
    net.register("a", "b")
    net.deliver(net.letters.pop(0))
    (at_home,) = home_letters(net)
    net.run()
    net.deliver(at_home)
    (late,) = home_letters(net)
    net.take("b", net.hosts["b"].rekeyed("a", net.now))
    net.letters.clear()
    net.deliver(late)
    assert net.hosts["b"].refused["nonce"] == 1 and used(net) == []


def test_after_a_rekey_without_a_binding_the_next_one_is_asked_at_home_again(
    net: Network,
) -> None:
    net.register("a", "b")
    net.run()
    net.take("a", net.hosts["a"].deregister("b", net.now))
    net.run()
    assert net.hosts["b"].rekeyed("a", net.now) == []
    net.now += 10
    net.register("a", "b")
    assert ASKED[1] in net.run()


def test_nobody_who_is_not_known_is_asked(net: Network) -> None:
    assert net.hosts["b"].rekeyed("a", net.now) == []
    assert net.hosts["b"].rekeyed("nobody", net.now) == []


def test_rekeys_in_a_row_are_three_tests_in_seven_seconds(net: Network) -> None:
    net.register("a", "b")
    net.run()
    net.now += 10
    for _ in range(700):
        net.now += 0.01
        net.take("b", net.hosts["b"].rekeyed("a", net.now))
        net.take("b", net.hosts["b"].advance(net.now))
    assert len(home_letters(net)) <= 4


def test_another_authentication_proves_nothing_of_before_i22(net: Network) -> None:
    """A second IKE SA under the same name may be somebody else's."""
    net.register("a", "b")
    net.run()
    net.take("b", net.hosts["b"].renewed("a"))
    assert used(net)[-1] == DropBinding("a", "its tunnel is gone")
    net.now += 10
    net.register("a", "b")
    without_home_agent(net, 20)
    assert isinstance(used(net)[-1], DropBinding)


def test_a_peer_that_was_never_told_of_us_is_not_answered_at_home(net: Network) -> None:
    octets = header.pack(Aotc(bytes(8)), B_ID, A_ID)
    said = net.deliver(Letter("b", "a", relay("b"), relay("a"), octets))
    assert said == [Refused("b", relay("b"), "unasked")] and not net.letters


def test_a_flood_of_updates_is_no_flood_of_tests_at_home(net: Network) -> None:
    for number in range(1, 400):
        update = BindingUpdate(number, 600, Claim.at(A1).options)
        net.deliver(Letter("a", "b", A1, B1, header.pack(update, A_ID, B_ID)))
        net.wait(0.1)
    asked = home_letters(net)
    assert len(asked) <= 3 * 40 / 7 + 3, "three in seven seconds"
