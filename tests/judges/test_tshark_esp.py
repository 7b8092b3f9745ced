"""tshark opens a capture of ours, given the keys: well-formed, ICV verified, inner packets there.

tshark 4.0 has no ChaCha20-Poly1305 for ESP; scapy judges that one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Raw
from scapy.utils import wrpcap

from fastpath.types import Suite
from tests.fastpath.support import ENGINES, OUR_ID, PEER_ID, SPI, esp_engine, params

OUTER = ("198.51.100.7", "203.0.113.9")
GCM = [Suite.AES128GCM16, Suite.AES256GCM16]
FIELDS = ["esp.spi", "esp.sequence", "esp.icv_good", "esp.icv_bad", "ipv6.src", "ipv6.dst"]
FIELDS += ["icmpv6.echo.sequence_number", "_ws.malformed", "esp.pad_len", "esp.protocol"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    return esp_engine(request.param)


def tshark(pcap: Path, key: bytes) -> list[dict[str, list[str]]]:
    """The :data:`FIELDS` of each packet, decrypted with ``key`` (key and salt)."""
    program = shutil.which("tshark")
    assert program is not None, "tshark is missing: `make setup` installs it"
    sa = f'"IPv4","{OUTER[0]}","{OUTER[1]}","0x{SPI:08x}",'
    sa += f'"AES-GCM with 16 octet ICV [RFC4106]","0x{key.hex()}","NULL",""'
    command = [program, "-r", str(pcap), "-T", "json"]
    command += ["-o", "esp.enable_encryption_decode:TRUE"]
    command += ["-o", "esp.enable_authentication_check:TRUE"]
    command += ["-o", f"uat:esp_sa:{sa}"]
    command += [word for name in FIELDS for word in ("-e", name)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=180)
    return [packet["_source"]["layers"] for packet in json.loads(done.stdout)]


def echo(sequence: int, length: int) -> bytes:
    header = IPv6(src=str(IPv6Address(OUR_ID)), dst=str(IPv6Address(PEER_ID)))
    return bytes(header / ICMPv6EchoRequest(id=7, seq=sequence, data=bytes(length)))


def write(pcap: Path, packets: list[bytes]) -> None:
    outer = IP(src=OUTER[0], dst=OUTER[1]) / UDP(sport=4500, dport=4500)
    wrpcap(str(pcap), [outer / Raw(packet) for packet in packets])


@pytest.mark.parametrize("suite", GCM)
def test_tshark_opens_every_packet_and_verifies_its_icv(
    engine: Any, suite: Suite, tmp_path: Path
) -> None:
    sa = engine.OutboundSa(params(suite, esn=False))
    write(tmp_path / "esp.pcap", [sa.seal(echo(n, n), 41) for n in range(1, 21)])
    seen = tshark(tmp_path / "esp.pcap", sa_key(suite))
    assert len(seen) == 20
    for number, packet in enumerate(seen, 1):
        assert "_ws.malformed" not in packet, packet
        assert int(packet["esp.spi"][0], 16) == SPI
        assert packet["esp.sequence"] == [str(number)]
        assert packet["esp.icv_good"] == ["1"], packet
        assert packet["ipv6.src"] == [str(IPv6Address(OUR_ID))]
        assert packet["ipv6.dst"] == [str(IPv6Address(PEER_ID))]
        assert packet["icmpv6.echo.sequence_number"] == [str(number)]
        assert packet["esp.protocol"] == ["0x29"]


def test_tshark_sees_that_an_icv_was_touched(engine: Any, tmp_path: Path) -> None:
    """The judge can say no: otherwise its yes above would be worth nothing."""
    packet = bytearray(engine.OutboundSa(params(esn=False)).seal(echo(1, 8), 41))
    packet[-1] ^= 1
    write(tmp_path / "esp.pcap", [bytes(packet)])
    [seen] = tshark(tmp_path / "esp.pcap", sa_key(Suite.AES128GCM16))
    assert seen["esp.icv_bad"] == ["1"], seen


def sa_key(suite: Suite) -> bytes:
    return params(suite).key
