"""Post-quantum pre-shared keys (RFC 8784): keys, and the whole table of §3."""

from __future__ import annotations

import pytest

from keys.ike.keymat import mixed_with_ppk
from keys.ike.notify import NotifyType
from keys.ike.types import IkeFailed, IkeLog, Ppk
from tests.keys.ike.net import Datagram, Net, Side
from tests.keys.ike.test_rekey import one_of_everything, rekey_child, rekey_ike
from tests.keys.ike.test_vectors import PRF, keys

DESK, LAP = "desk.alice.example", "lap.alice.example"
SECRET = b"\x11" * 32


def two(desk: Ppk | None, lap: Ppk | None, **settings: object) -> tuple[Net, Side, Side]:
    net = Net(**settings)
    if desk is not None:
        net.ppks[DESK, LAP] = desk
    if lap is not None:
        net.ppks[LAP, DESK] = lap
    return net, net.add(DESK, 1), net.add(LAP, 2)


def ppk(*, required: bool = False, identity: bytes = b"one", secret: bytes = SECRET) -> Ppk:
    return Ppk(identity, secret, required)


def test_keys_with_a_ppk() -> None:
    """The fact sheet's vector: SK_d, SK_pi and SK_pr change, SK_e does not."""
    before, after = keys(), mixed_with_ppk(keys(), b"\xaa" * 32)
    assert after.d.hex() == "9825dd986aaa8eb5dcab1bfea0b87213e5ab3b38dc4e27bbd34a677b543cd7a3"
    assert after.pi == PRF(b"\xaa" * 32, before.pi + b"\x01")
    assert after.pr == PRF(b"\xaa" * 32, before.pr + b"\x01")
    assert (after.ei, after.er) == (before.ei, before.er)


@pytest.mark.parametrize("required_by_desk", [False, True])
@pytest.mark.parametrize("required_by_lap", [False, True])
def test_both_hold_it(required_by_desk: bool, required_by_lap: bool) -> None:
    net, desk, lap = two(ppk(required=required_by_desk), ppk(required=required_by_lap))
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()
    assert [side.ike.views()[0].ppk for side in (desk, lap)] == [True, True]


def test_it_changes_the_keys_of_children_and_lives_on_in_rekeys() -> None:
    outs = []
    for one in (None, ppk()):
        net, desk, lap = two(one, one)
        net.connect(desk, lap)
        net.play(2)
        assert desk.outbound is not None
        outs.append(desk.outbound.key_out)
        net.watch_gaps = True
        rekey_ike(net, desk, lap)
        net.play(5)
        rekey_child(net, lap, desk)
        net.play(10)
        one_of_everything(net, desk, lap)
        assert desk.ike.views()[0].ppk is (one is not None)
    assert outs[0] != outs[1]


def test_with_ml_kem_before_it() -> None:
    net, desk, lap = two(ppk(required=True), ppk(required=True), additional=("mlkem768",))
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()


# (initiator's, responder's, in use, or the reason): RFC 8784 §3, table 1, and the initiator's side.
MATRIX: list[tuple[Ppk | None, Ppk | None, bool | str]] = [
    (None, None, False),
    (None, ppk(), False),
    (None, ppk(required=True), "AUTHENTICATION_FAILED"),
    (ppk(), None, False),
    (ppk(required=True), None, "uses no post-quantum pre-shared key"),
    (ppk(), ppk(identity=b"two"), False),
    (ppk(), ppk(identity=b"two", required=True), "AUTHENTICATION_FAILED"),
    (ppk(required=True), ppk(identity=b"two"), "AUTHENTICATION_FAILED"),
    (ppk(required=True), ppk(identity=b"two", required=True), "AUTHENTICATION_FAILED"),
    (ppk(), ppk(secret=b"\x22" * 32), "AUTHENTICATION_FAILED"),
]


@pytest.mark.parametrize(("ours", "theirs", "ending"), MATRIX)
def test_the_matrix(ours: Ppk | None, theirs: Ppk | None, ending: bool | str) -> None:
    net, desk, lap = two(ours, theirs)
    net.connect(desk, lap)
    net.play(6)
    if isinstance(ending, str):
        (failed,) = desk.all(IkeFailed)
        assert ending in failed.reason
        assert not lap.inbound
        assert not desk.inbound
    else:
        assert net.pair_is_up()
        assert desk.ike.views()[0].ppk is lap.ike.views()[0].ppk is ending


def test_a_responder_that_holds_others_only_takes_the_proof_without() -> None:
    """It answers USE_PPK before it knows who asks, and then takes NO_PPK_AUTH."""
    net, desk, lap = two(ppk(), None)
    lap.ike._ctx.ppks = {"someone.else.example": ppk()}
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()
    assert not lap.ike.views()[0].ppk


def test_a_responder_that_holds_others_only_and_no_proof_without() -> None:
    net, desk, lap = two(ppk(required=True), None)
    lap.ike._ctx.ppks = {"someone.else.example": ppk()}
    net.connect(desk, lap)
    net.play(2)
    assert "AUTHENTICATION_FAILED" in desk.all(IkeFailed)[0].reason
    assert any("that we do not hold for it" in log.text for log in lap.all(IkeLog))


def test_an_initiator_that_agreed_and_names_none_is_refused() -> None:
    """RFC 8784 §3: no PPK_IDENTITY after USE_PPK."""
    net, desk, lap = two(ppk(), ppk())
    net.connect(desk, lap)
    net.play(0.07)
    (sa,) = list(desk.ike._ctx)
    desk.ike._ctx.ppks = {}
    net.play(2)
    assert sa.name == LAP
    assert any("named none" in log.text for log in lap.all(IkeLog))


def test_who_strips_use_ppk_is_found_out() -> None:
    """IKE_SA_INIT is signed: a downgrade ends in AUTHENTICATION_FAILED, not in a tunnel."""
    net, desk, lap = two(ppk(), ppk())
    use = b"\x00\x00" + NotifyType.USE_PPK.to_bytes(2, "big")

    def strip(datagram: Datagram) -> bytes:
        return datagram.data.replace(use, b"\x00\x00\xc0\x00")

    net.tamper = strip
    net.connect(desk, lap)
    net.play(2)
    assert "AUTHENTICATION_FAILED" in desk.all(IkeFailed)[0].reason
    assert not lap.inbound


def test_a_ppk_is_not_shown() -> None:
    assert "\\x11" not in repr(ppk())
