"""Both sides prove themselves with certificates (RFC 7296 §3.6, RFC 7427, RFC 7383)."""

from __future__ import annotations

from functools import cache

import pytest

from tests.interop.certificates import KINDS, papers
from tests.interop.stage import OUR_OUTER, THEIR_OUTER, Papers, Stage
from tests.interop.test_matrix import GROUPS, SUITES, can_be_opened

pytestmark = pytest.mark.root

OTHER_KIND = dict(zip(KINDS, KINDS[1:] + KINDS[:1], strict=True))

# Before the kernel joins them.
NO_FRAGMENTS = """
table inet lab {
  chain whole {
    type filter hook prerouting priority -450
    ip frag-off & 0x3fff != 0 drop
  }
}
"""


@cache
def of_kind(ours: str, theirs: str, between: str | None = None) -> Papers:
    """Keys are made once: RSA takes its time."""
    return papers(ours, theirs, between=between)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("group", ["x25519", "ecp256"])
@pytest.mark.parametrize("who", ["we", "charon"])
def test_a_tunnel_by_certificates(stage: Stage, who: str, group: str, suite: str) -> None:
    shown = of_kind("ed25519", "ecdsa256")
    words = {"suite": suite, "group": GROUPS[who, group]}
    opens = can_be_opened(suite)
    with stage.play("matrix_certificates", opens=opens, papers=shown, **words) as play:
        play.reach() if who == "we" else play.charon.initiate()
        play.check_both_ways()
        assert ("INVAL_KE" in play.charon.log()) == (group == "ecp256")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_signs_and_is_believed(stage: Stage, kind: str) -> None:
    shown = of_kind(OTHER_KIND[kind], kind)
    words = {"suite": SUITES[0], "group": "x25519"}
    with stage.play("matrix_certificates", papers=shown, **words) as play:
        play.reach()
        play.check_both_ways()


@pytest.mark.parametrize("who", ["we", "charon"])
def test_long_chains_travel_in_fragments(stage: Stage, who: str) -> None:
    shown = of_kind("rsa", "rsa", between="rsa")
    for machine in (stage.ours, stage.theirs):
        machine.run("nft", "-f", "-", stdin=NO_FRAGMENTS)
    try:
        with stage.play("fragments", papers=shown) as play:
            play.reach() if who == "we" else play.charon.initiate()
            play.check_both_ways()
    finally:
        for machine in (stage.ours, stage.theirs):
            machine.run("nft", "delete", "table", "inet", "lab")
    for side in (OUR_OUTER, THEIR_OUTER):
        pieces = [one for one in play.seen if one["isakmp.frag.total"] and one["ip.src"] == [side]]
        assert len(pieces) >= 3, (side, len(pieces))
