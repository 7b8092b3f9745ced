"""Both roles, every suite, both groups: a tunnel stands and carries data both ways."""

from __future__ import annotations

import pytest

from tests.interop.stage import Stage

pytestmark = pytest.mark.root

SUITES = ["aes128gcm16", "aes256gcm16", "chacha20poly1305"]
# What charon has, so that the group in the name is taken; of two it guesses the first, which we do
# not have.
GROUPS = {
    ("we", "x25519"): "x25519",
    ("we", "ecp256"): "ecp256",
    ("charon", "x25519"): "x25519",
    ("charon", "ecp256"): "modp3072-ecp256",
}


def can_be_opened(suite: str) -> bool:
    """Whether tshark 4.0 knows it."""
    return suite != "chacha20poly1305"


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("group", ["x25519", "ecp256"])
@pytest.mark.parametrize("who", ["we", "charon"])
def test_a_tunnel_by_pre_shared_key(stage: Stage, who: str, group: str, suite: str) -> None:
    words = {"suite": suite, "group": GROUPS[who, group]}
    with stage.play("matrix_psk", opens=can_be_opened(suite), **words) as play:
        play.reach() if who == "we" else play.charon.initiate()
        play.check_both_ways()
        assert play.peer()["suite"] == suite
        assert ("INVAL_KE" in play.charon.log()) == (group == "ecp256")
