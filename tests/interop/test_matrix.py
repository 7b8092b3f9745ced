"""Both roles, every suite, both groups: a tunnel stands and carries data both ways."""

from __future__ import annotations

import pytest

from tests.interop.stage import Stage

pytestmark = pytest.mark.root

SUITES = ["aes128gcm16", "aes256gcm16", "chacha20poly1305"]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("group", ["x25519", "ecp256"])
@pytest.mark.parametrize("who", ["we", "charon"])
def test_a_tunnel_by_pre_shared_key(stage: Stage, who: str, group: str, suite: str) -> None:
    # Of two groups charon guesses the first, which we do not have.
    groups = "modp3072-ecp256" if (who, group) == ("charon", "ecp256") else group
    opens = suite != "chacha20poly1305"  # which tshark 4.0 does not have
    with stage.play("matrix_psk", opens=opens, suite=suite, group=groups) as play:
        play.reach() if who == "we" else play.charon.initiate()
        play.check_both_ways()
        assert play.peer()["suite"] == suite
        assert ("INVAL_KE" in play.charon.log()) == (group == "ecp256")
