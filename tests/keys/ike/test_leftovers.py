"""What an exchange that comes to nothing leaves behind: nothing (found by ``make fuzz``)."""

from __future__ import annotations

import pytest

from keys.ike.create_child import CreateChild
from keys.ike.informational import delete_child
from keys.ike.notify import NotifyType
from keys.ike.types import PeerDown, PeerUp
from tests.keys.ike.net import DELAY, Datagram, Fate, Net, Side, deliver, pair


def up() -> tuple[Net, Side, Side]:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()
    net.sent.clear()
    return net, desk, lap


def nothing_but_children(*sides: Side) -> None:
    """Every SPI that is taken is that of a child."""
    for side in sides:
        assert side.ike._ctx._child_spis == set(side.inbound), side.name


def losing(kind: str, times: int) -> Fate:
    """The first ``times`` datagrams of this kind are lost."""
    left = [times]

    def fate(datagram: Datagram) -> list[float]:
        if datagram.kind == kind and left[0]:
            left[0] -= 1
            return []
        return deliver(datagram)

    return fate


@pytest.mark.parametrize("kind", ["34r", "35r"])
def test_an_attempt_that_times_out_gives_its_spi_back(kind: str) -> None:
    net, desk, lap = pair(fate=losing(kind, 1000))
    net.connect(desk, lap)
    net.play(700)
    assert not desk.ike._ctx and not desk.inbound
    nothing_but_children(desk, lap)


@pytest.mark.parametrize("when", ["under way", "waits"])
def test_a_child_that_is_never_answered_gives_its_spi_back(when: str) -> None:
    net, desk, lap = up()
    net.fate = losing("36r", 1000)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    if when == "waits":
        net.run(desk, desk.ike.close(lap.name, net.now))
    net.play(700)
    nothing_but_children(desk, lap)


def test_a_wrong_answer_gives_the_spi_back() -> None:
    net, desk, lap = pair()

    def without_auth(data: Datagram) -> bytes:
        if data.kind != "35r":
            return data.data
        ours, theirs = (next(iter(side.ike._ctx)) for side in (lap, desk))
        header = ours.header(35, 1, response=True)
        assert ours._seal is not None and theirs.keys is not None
        return ours._seal.seal_chain(header, 0, b"")

    net.tamper = without_auth
    net.connect(desk, lap)
    net.play(2)
    assert not desk.ike._ctx
    nothing_but_children(desk)


def fresh_child_whose_answer_is_lost() -> tuple[Net, Side, Side]:
    """Desk asks for a child; lap has made it and says so, but is not heard."""
    net, desk, lap = up()
    sa = desk.ike._ctx.current(lap.name)
    assert sa is not None
    sa.remove_child(next(iter(sa.children.values())))
    net.fate = losing("36r", 1)
    net.connect(desk, lap)
    net.play(2 * DELAY)
    assert isinstance(sa.task, CreateChild)
    return net, desk, lap


def test_a_child_that_we_have_not_heard_of_cannot_be_rekeyed_yet() -> None:
    """Not CHILD_SA_NOT_FOUND: the peer would close it, and we would send on it ever after."""
    net, desk, lap = fresh_child_whose_answer_is_lost()
    net.run(lap, lap.ike.rekey(desk.name, net.now))
    net.play(30)
    assert net.pair_is_up()
    nothing_but_children(desk, lap)


@pytest.mark.parametrize("again", [True, False])
def test_a_child_that_was_closed_before_we_heard_of_it_is_not_used(again: bool) -> None:
    net, desk, lap = fresh_child_whose_answer_is_lost()
    sa = lap.ike._ctx.current(desk.name)
    assert sa is not None and lap.outbound is not None
    newest = list(sa.children.values())[-1]
    for child in list(sa.children.values()) if again else [newest]:
        delete_child(sa, child, net.now)
    net.run(lap, lap.ike.advance(net.now))
    net.play(30)
    assert net.pair_is_up()
    assert newest.sa.spi_in not in lap.inbound
    nothing_but_children(desk, lap)


def test_a_rekey_whose_child_was_closed_before_we_heard_of_it_is_tried_again() -> None:
    net, desk, lap = up()
    net.fate = losing("36r", 1)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(2 * DELAY)
    sa = lap.ike._ctx.current(desk.name)
    assert sa is not None
    delete_child(sa, list(sa.children.values())[-1], net.now)
    net.run(lap, lap.ike.advance(net.now))
    net.play(60)
    assert net.pair_is_up()
    assert len(desk.inbound) == len(lap.inbound) == 1
    nothing_but_children(desk, lap)


@pytest.mark.parametrize("what", ["child", "IKE SA"])
def test_a_peer_that_puts_us_off_for_minutes_is_left(what: str) -> None:
    """RFC 7296 §2.25: then the two sides are out of step, and only a new IKE SA helps."""
    net, desk, lap = up()
    ours, theirs = desk.ike._ctx.current(lap.name), lap.ike._ctx.current(desk.name)
    assert ours is not None and theirs is not None
    # Lap waits for the answer to a rekey of the IKE SA (or a child) that never gets through.
    net.fate = lambda d: [] if d.sender == lap.name and d.kind == "36q" else deliver(d)
    if what == "child":
        theirs.rekey_at = net.now
        net.run(lap, lap.ike.advance(net.now))
    else:
        net.run(lap, lap.ike.rekey(desk.name, net.now))
    if what == "child":
        net.run(desk, desk.ike.rekey(lap.name, net.now))
    else:
        ours.rekey_at = net.now
        net.run(desk, desk.ike.advance(net.now))
    net.play(290)
    assert ours.is_established
    net.play(40)
    assert not ours.is_established
    (down,) = desk.all(PeerDown)
    assert "puts every change of the SAs off" in down.reason
    net.fate = deliver
    net.connect(desk, lap)
    net.play(5)
    assert net.pair_is_up()


def test_a_peer_that_puts_us_off_now_and_then_is_kept() -> None:
    _, desk, lap = up()
    sa = desk.ike._ctx.current(lap.name)
    assert sa is not None
    wait = NotifyType.TEMPORARY_FAILURE
    assert [sa.is_stuck(wait, 100.0 * n) for n in range(9)] == [False] * 9
    assert not sa.is_stuck(wait, 1000.0)
    assert not any(sa.is_stuck(wait, 1000.0 + n) for n in range(0, 300, 20))
    assert sa.is_stuck(wait, 1300.0)
    assert not sa.is_stuck(NotifyType.NO_PROPOSAL_CHOSEN, 1310.0)
    assert not sa.is_stuck(wait, 1320.0)


def test_nobody_is_told_that_an_sa_stands_which_is_gone() -> None:
    """The answer to IKE_AUTH is lost, and the responder closes the SA before it is asked again."""
    net, desk, lap = pair()
    net.fate = losing("35r", 1000)
    net.connect(desk, lap)
    net.play(6 * DELAY)
    assert lap.ike.views() and not desk.ike.views()
    net.run(lap, lap.ike.close(desk.name, net.now))
    net.play(11)
    assert not lap.ike._ctx
    net.fate = deliver
    net.play(30)
    assert not desk.ike._ctx and not desk.inbound
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()


def test_who_hears_late_that_an_sa_stands_hears_at_once_that_it_is_closed() -> None:
    """The first answer that gets through comes after the last planned Delete."""
    net, desk, lap = pair()
    net.fate = losing("35r", 1000)
    net.connect(desk, lap)
    net.play(6 * DELAY)
    net.run(lap, lap.ike.close(desk.name, net.now))
    (sa,) = lap.ike._ctx
    outstanding = sa.window.outstanding
    assert outstanding is not None
    while outstanding.tries_left:
        assert net.step(net.now + 60)
    net.fate = deliver
    net.play(30)
    assert desk.all(PeerUp) and desk.all(PeerDown), "it stood, and was closed"
    assert not desk.ike._ctx and not lap.ike._ctx and not desk.inbound
