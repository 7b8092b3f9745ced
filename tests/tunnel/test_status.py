"""What ``status`` computes of a peer (DESIGN §5)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from fastpath.types import SaCounters
from keys.ike.types import ChildSa
from tunnel.peers import Peer
from tunnel.status import peer_status

OURS, THEIRS = IPv6Address("fd00::a"), IPv6Address("fd00::b")


def child(mode: str) -> ChildSa:
    keys = {"key_in": bytes(20), "key_out": bytes(20)}
    about = {"peer": "desk", "spi_in": 256, "spi_out": 257, "suite": "aes128gcm16"}
    return ChildSa(**about, **keys, esn=True, mode=mode, local_id=OURS, peer_id=THEIRS)


@pytest.mark.parametrize(("mode", "saved"), [("tunnel", 0), ("transport", 40 * 12)])
def test_status_says_what_transport_mode_saves(mode: str, saved: int) -> None:
    peer = Peer("desk", None, current=child(mode))
    peer.inbound[256] = SaCounters(4, 1000, None, {})
    peer.outbound[257] = SaCounters(5, 1000, None, {})
    peer.received.add(SaCounters(1, 100, None, {}))  # of SAs that are gone
    peer.sent.add(SaCounters(2, 100, None, {}))
    assert peer_status(peer, None, 0.0)["saved_bytes"] == saved
