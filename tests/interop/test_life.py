"""What happens to a tunnel that stands: rekeys, deaths, restarts, good-byes."""

from __future__ import annotations

import pytest

from tests.interop.stage import PATIENCE, Play, Stage
from tunnel.io.lab import wait_until

pytestmark = pytest.mark.root

LONG = "3600.0"
DEATH = 90.0  # seconds: a dead peer is asked for 20 s, and the machine may be busy


def other_child(play: Play, before: tuple[int, int]) -> bool:
    """Whether a new pair of SPIs is in use; the judge gets all keys there are until then."""
    play.export_keys()
    return play.spis() != before


def other_ike_sa(play: Play, before: list[tuple[str, str]]) -> bool:
    """The same for the IKE SA, once charon has let the old one go."""
    play.export_keys()
    now = play.charon.ike_spis()
    return len(now) == 1 and now != before


# --- Rekeys -----------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["we", "charon"])
def test_a_child_is_rekeyed_and_no_packet_is_lost(stage: Stage, who: str) -> None:
    lifetime = "8.0" if who == "we" else LONG
    with stage.play("rekey", child_lifetime=lifetime, ike_lifetime=LONG) as play:
        play.reach()
        before, ike = play.settle(), play.charon.ike_spis()
        with play.pings(seconds=9 if who == "we" else 3):
            if who == "charon":
                play.charon.rekey_child()
            play.until(lambda: other_child(play, before), "a new child carries the pings")
        play.check_both_ways()
        assert play.charon.ike_spis() == ike


@pytest.mark.parametrize("who", ["we", "charon"])
def test_an_ike_sa_is_rekeyed_and_its_child_stays(stage: Stage, who: str) -> None:
    lifetime = "5.0" if who == "we" else LONG
    with stage.play("rekey", child_lifetime=LONG, ike_lifetime=lifetime) as play:
        play.reach()
        before, ike = play.settle(), play.charon.ike_spis()
        with play.pings(seconds=6 if who == "we" else 3):
            if who == "charon":
                play.charon.rekey_ike()
            play.until(lambda: other_ike_sa(play, ike), "a new IKE SA stands")
        assert play.settle() == before
        play.check_both_ways()
        # The new IKE SA serves: its first exchange about a child.
        play.charon.rekey_child()
        play.until(lambda: other_child(play, before), "a child is rekeyed on the new IKE SA")
        play.check_both_ways()


# --- Deaths and restarts ----------------------------------------------------------------------


def test_we_notice_that_charon_died(stage: Stage) -> None:
    with stage.play("dead_peer") as play:
        play.reach()
        play.check_both_ways()
        play.charon.process.kill()
        pings = play.stage.ours.start("ping", "-i", "0.5", "-W", "1", play.their_id, name="ping")
        play.until(lambda: play.peer()["state"] != "up", "we call charon gone", DEATH)
        pings.stop()
        assert "answer" in str(play.peer()["reason"])


def test_charon_notices_that_we_died(stage: Stage) -> None:
    with stage.play("dead_peer") as play:
        play.reach()
        play.check_both_ways()
        assert play.host.process is not None
        play.host.process.kill()
        play.until(lambda: not play.charon.sas().strip(), "charon calls us gone", DEATH)


def test_charon_comes_back_and_the_tunnel_too(stage: Stage) -> None:
    with stage.play("restart") as play:
        play.reach()
        before = play.settle()
        play.check_both_ways()
        play.charon.process.kill()
        play.charon.restart()
        play.until(play.answers, "charon answers pings again", DEATH)
        assert play.settle() != before
        play.check_both_ways()


def test_we_come_back_and_the_tunnel_too(stage: Stage) -> None:
    with stage.play("restart") as play:
        play.reach()
        before = play.settle()
        play.check_both_ways()
        assert play.host.process is not None
        play.host.process.kill()
        play.host.up()
        play.reach()
        assert play.settle() != before
        assert len(play.charon.ike_spis()) == 1
        play.check_both_ways()


# --- Good-byes --------------------------------------------------------------------------------


def test_charon_deletes_the_child_and_the_next_packet_makes_another(stage: Stage) -> None:
    with stage.play("delete") as play:
        play.reach()
        before, ike = play.settle(), play.charon.ike_spis()
        play.check_both_ways()
        play.charon.terminate_child()
        play.until(lambda: play.spis() != before, "we have let the child go")
        play.ping(1)
        assert play.settle() != before
        assert play.charon.ike_spis() == ike
        play.check_both_ways()


def test_charon_deletes_the_ike_sa_and_the_next_packet_makes_another(stage: Stage) -> None:
    with stage.play("delete") as play:
        play.reach()
        before, ike = play.settle(), play.charon.ike_spis()
        play.check_both_ways()
        play.charon.terminate()
        play.ping(1)
        assert play.settle() != before
        assert play.charon.ike_spis() != ike
        play.check_both_ways()


def test_we_go_down_and_charon_holds_nothing(stage: Stage) -> None:
    with stage.play("delete") as play:
        play.reach()
        play.check_both_ways()
        play.end()
        wait_until(lambda: not play.charon.sas().strip(), PATIENCE, "charon holds no SA")
