"""A side moves to another address, and the tunnel with it (RFC 4555)."""

from __future__ import annotations

import pytest

from tests.interop.stage import Stage

pytestmark = pytest.mark.root

ELSEWHERE = {"we": "192.0.2.11", "charon": "192.0.2.12"}
UPDATE_SA_ADDRESSES = "16400"
MOVED = 60.0  # seconds: we look at our addresses every three, and the machine may be busy


@pytest.mark.parametrize("began", ["we", "charon"])
@pytest.mark.parametrize("moves", ["we", "charon"])
def test_the_tunnel_moves_with_either_side(stage: Stage, moves: str, began: str) -> None:
    with stage.play("mobike") as play:
        play.reach() if began == "we" else play.charon.initiate()
        play.settle()
        ike = play.charon.ike_spis()
        play.check_both_ways()
        stage.move(stage.ours if moves == "we" else stage.theirs, ELSEWHERE[moves])
        play.until(play.answers, "pings come back over the new path", MOVED)
        play.check_both_ways()
        assert play.charon.ike_spis() == ike
    assert [
        one["ip.src"] for one in play.seen if one.is_esp and one["ip.src"] == [ELSEWHERE[moves]]
    ]
    said = [one for one in play.seen if UPDATE_SA_ADDRESSES in one["isakmp.notify.msgtype"]]
    # To charon we seem to be behind a NAT, whose changes it follows by itself (RFC 7296 §2.23).
    assert said or (moves, began) == ("we", "charon"), "nobody said UPDATE_SA_ADDRESSES"
