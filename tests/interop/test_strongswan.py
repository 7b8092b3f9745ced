"""A stock strongSwan as a static ``[[peer]]``, with no zone at all (issue 2, capability 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tunnel.io.lab import HostMachine, Lab, LabError, wait_until
from tunnel.io.lab.charon import Charon

pytestmark = pytest.mark.root

OURS, THEIRS = "fd12:3456:789a::1", "fd12:3456:789a::2"
PSK = bytes(range(32))

CONFIG = f"""
[host]
name = "laptop.example"
id = "{OURS}"
device = "at0"
[resolver]
enabled = false
[[peer]]
name = "gateway.example"
id = "{THEIRS}"
endpoint = "192.0.2.2:4500"
auth = "psk"
psk_file = "gateway.psk"
suites = ["aes128gcm16"]
mode = "tunnel"
"""


@dataclass
class Pair:
    """Our host and charon on one network."""

    host: HostMachine
    charon: Charon

    def ping(self, count: int = 3) -> None:
        """Ping charon's inner address through the tunnel; all must come back."""
        self.host.machine.run("ping", "-c", str(count), "-i", "0.2", "-W", "10", THEIRS)

    def ping_back(self, count: int = 3) -> None:
        """The other way round."""
        self.charon.machine.run(
            "ping", "-c", str(count), "-i", "0.2", "-W", "10", "-I", THEIRS, OURS
        )

    def peer(self) -> dict[str, object]:
        """What our ``status`` says of charon."""
        found = self.host.peer("gateway.example")
        assert found is not None
        return found

    def spis(self) -> tuple[int, int]:
        """Our (spi_in, spi_out) as numbers."""
        peer = self.peer()
        return _number(peer["spi_in"]), _number(peer["spi_out"])


def _number(spi: object) -> int:
    return int(spi, 16) if isinstance(spi, str) else int(str(spi))


@pytest.fixture
def pair(lab: Lab) -> Pair:
    return make_pair(lab)


def make_pair(lab: Lab, remote_port: int = 4500) -> Pair:
    """Both up; ``remote_port`` is where charon sends its first message."""
    net = lab.switch("net")
    ours, theirs = lab.machines_of("laptop", "gateway")
    net.plug(ours, "eth0", "192.0.2.1/24")
    net.plug(theirs, "eth0", "192.0.2.2/24")
    charon = Charon(
        theirs,
        local="192.0.2.2",
        remote="192.0.2.1",
        local_id="gateway.example",
        remote_id="laptop.example",
        local_inner=THEIRS,
        remote_inner=OURS,
        psk=PSK,
        remote_port=remote_port,
    )
    host = HostMachine(ours)
    host.config.write_text(CONFIG)
    secret = host.config.parent / "gateway.psk"
    secret.touch(mode=0o600)
    secret.write_bytes(PSK + b"\n")
    host.settle()
    if remote_port == 500:
        host.change("host", {"ike_port": 500})
    host.up()
    return Pair(host, charon)


def check_both_ways(pair: Pair) -> None:
    """Data flows both ways, and both ends count it on the same pair of SPIs."""
    pair.ping()
    pair.ping_back()
    spi_in, spi_out = pair.spis()
    assert (spi_out, spi_in) in pair.charon.children()
    received, sent = pair.charon.octets()
    assert received > 0
    assert sent > 0
    peer = pair.peer()
    assert peer["suite"] == "aes128gcm16"
    assert peer["mode"] == "tunnel"
    assert peer["path"] == "direct"
    assert int(str(peer["rx_packets"])) >= 6
    assert int(str(peer["tx_packets"])) >= 6


def test_a_packet_makes_the_tunnel_and_data_flows_both_ways(pair: Pair) -> None:
    check_both_ways(pair)


@pytest.mark.parametrize("port", [4500, 500])
def test_charon_may_begin(lab: Lab, port: int) -> None:
    """From its port 500 it sends IKE to our 4500 without the non-ESP marker; and it may insist
    on port 500, where we then listen too (RFC 7296 §2.23)."""
    pair = make_pair(lab, port)
    pair.charon.initiate()
    check_both_ways(pair)


def during_pings(pair: Pair, event: Callable[[], object]) -> None:
    """Run ``event`` while pings flow at 50 per second; not one of them may be lost."""
    pair.ping(1)
    pings = pair.host.machine.start("ping", "-c", "150", "-i", "0.02", "-W", "5", THEIRS)
    wait_until(lambda: "icmp_seq=20 " in pings.output(), 20, "pings flow")
    before = pair.spis()
    event()
    wait_until(lambda: pair.spis() != before, 20, "a new pair of SPIs is in use")
    assert pings.wait(30) == 0
    assert "150 packets transmitted, 150 received" in pings.output()


def test_charon_rekeys_the_child_and_no_packet_is_lost(pair: Pair) -> None:
    during_pings(pair, pair.charon.rekey_child)
    check_both_ways(pair)


def test_we_rekey_the_child_and_no_packet_is_lost(pair: Pair) -> None:
    pair.host.down()
    pair.host.change("ike", {"child_lifetime": 2.0})
    pair.host.up()
    during_pings(pair, lambda: None)
    check_both_ways(pair)


def test_down_tells_charon(pair: Pair) -> None:
    pair.ping(1)
    assert pair.charon.children()
    assert pair.host.down() == 0
    wait_until(lambda: not pair.charon.sas().strip(), 10, "charon has no SA any more")


def test_charon_deletes_and_the_next_packet_makes_a_new_tunnel(pair: Pair) -> None:
    pair.ping(1)
    before = pair.spis()
    pair.charon.terminate()
    pair.ping()
    assert pair.spis() != before


def test_a_wrong_key_is_told_in_a_sentence(pair: Pair) -> None:
    pair.host.down()
    (pair.host.config.parent / "gateway.psk").write_bytes(b"another key of 32 octets, at least")
    pair.host.up()
    with pytest.raises(LabError):
        pair.ping(1)
    assert not pair.charon.children()
    assert "authentication" in str(pair.peer()).lower()
