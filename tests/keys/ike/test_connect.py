"""IKE_SA_INIT and IKE_AUTH between two of our endpoints (RFC 7296 §1.2)."""

from __future__ import annotations

from tests.keys.ike.net import PeerUp, pair


def test_four_messages_make_a_tunnel() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    assert [d.kind for d in net.sent] == ["34q", "34r", "35q", "35r"]
    assert net.pair_is_up()
    assert len(desk.all(PeerUp)) == len(lap.all(PeerUp)) == 1
    assert desk.outbound is not None
    assert desk.outbound.suite == "aes128gcm16"
    assert desk.outbound.esn


def test_child_rekey() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    net.watch_gaps = True
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(20)
    assert net.gaps == []
    assert len(desk.inbound) == len(lap.inbound) == 1
    net.play(20000)
    assert net.gaps == []
    assert net.pair_is_up()
