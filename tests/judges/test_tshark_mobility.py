"""tshark dissects our Mobility Header messages; scapy verifies their checksums over host ids.

tshark 4.0 does not know the draft's four types (IANA never assigned 30 to 33) and says so.
"""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.utils import wrpcap

from tunnel.mobility import header, options
from tunnel.mobility.header import (
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingError,
    BindingUpdate,
    Message,
    RefreshRequest,
)

S = IPv6Address("fd01:203:405:607:22:69ff:fe8e:342a")
D = IPv6Address("fd11:1213:1415:1617:22:69ff:fe00:1")
ANY = IPv4Address("0.0.0.0")
UPDATE = BindingUpdate(
    *(0x102, 600),
    (
        options.AlternateCareOf(options.mapped("198.51.100.7")),
        options.Port(4500),
        options.Ipv4CareOf(IPv4Address("10.0.0.2")),
        options.Ipv4Home(32, ANY),
    ),
    home=True,
)
ACK = BindingAck(
    *(0, 0x102, 600),
    (
        options.NatDetection(110, True),
        options.RefreshAdvice(300),
        options.Ipv4Acknowledgement(132, 0, ANY),
    ),
)
TESTS: list[Message] = [Aoto(), Aotc(bytes(8)), Aotr(bytes(8)), Aots(1)]


def dissected(pcap: Path, messages: list[Message]) -> str:
    """What tshark says of the messages, with every field."""
    octets = [header.packet(header.pack(one, S, D), S, D) for one in messages]
    wrpcap(str(pcap), [IPv6(one) for one in octets])
    program = shutil.which("tshark")
    assert program is not None, "tshark is missing: `make setup` installs it"
    command = [program, "-r", str(pcap), "-V"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=180)
    said = done.stdout.decode()
    assert "Malformed" not in said, said
    return said


def test_tshark_reads_a_binding_update_and_its_acknowledgement(tmp_path: Path) -> None:
    said = dissected(tmp_path / "mh.pcap", [UPDATE, ACK])
    for words in (
        "Mobility Header Type: Binding Update (5)",
        "Sequence number: 258",
        "Acknowledge (A) flag: Binding Acknowledgement requested",
        "Home Registration (H) flag: Home Registration",
        "Forcing UDP encapsulation (F) flag: No Forcing UDP encapsulation",
        "Lifetime: 150 (600 seconds)",
        "Alternate care-of address: ::ffff:198.51.100.7",
        "MIPv6 Option - Experimental",
        "IPv4 Care-of address: 10.0.0.2",
        "IPv4 Home Address: 0.0.0.0",
        "Mobility Header Type: Binding Acknowledgement (6)",
        "Status: Binding Update accepted (0)",
        "Refresh time: 110s",
        "Refresh interval: 75 (300 seconds)",
    ):
        assert words in said, words


def test_tshark_reads_the_other_messages(tmp_path: Path) -> None:
    said = dissected(tmp_path / "mh.pcap", [BindingError(2, S), RefreshRequest(), *TESTS])
    assert "Status: Unrecognized MH type value (2)" in said
    assert f"Home Address: {S}" in said
    assert "Binding Refresh Request" in said
    for kind in (30, 31, 32, 33):
        assert f"Mobility Header Type: Unknown ({kind})" in said


def test_scapy_computes_the_same_checksums() -> None:
    for one in (UPDATE, ACK, BindingError(2, S), RefreshRequest(), *TESTS):
        octets = header.pack(one, S, D)
        outer = IPv6(src=str(S), dst=str(D))
        assert in6_chksum(135, outer, octets) == 0, one
        assert in6_chksum(135, outer, octets[:-1] + bytes((octets[-1] ^ 1,))) != 0
