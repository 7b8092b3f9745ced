"""The native pump between real TUN devices in namespaces, with and without offload.

Outside there is IPv4 or IPv6, and a link that carries GSO bursts whole, one that does not (a
"plain" link), one whose device computes no checksums, or one that is too narrow for the packets.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fastpath.pump_end import IDS
from tunnel.io.lab import Lab, Namespace, Process, connect

OCTETS = 8_000_000
OUTER = {4: ("10.9.0.1", "10.9.0.2"), 6: ("2001:db8::1", "2001:db8::2")}
REPOSITORY = Path(__file__).parents[2]


LINKS = {
    "fast": (),
    "plain": (("tx-udp-segmentation", "off"),),
    "no checksums": (("tx-udp-segmentation", "off"), ("tx", "off")),
    "narrow": (),
}

FEATURES = {  # as the kernel itself shows them of a TUN device
    "tun_checksum": "tx-checksum-ip-generic",
    "tun_tso4": "tx-tcp-segmentation",
    "tun_tso6": "tx-tcp6-segmentation",
    "tun_uso": "tx-udp-segmentation",
}


@pytest.fixture
def hosts(lab: Lab) -> Callable[..., tuple[list[Namespace], list[Process]]]:
    """Two namespaces on one link, a pump in each."""

    def make(
        offload: bool, link: str, family: int, queues: int = 1
    ) -> tuple[list[Namespace], list[Process]]:
        machines = list(lab.machines_of("left", "right"))
        mtu = 1300 if link == "narrow" else 1500
        connect(machines[0], "eth0", machines[1], "eth0", mtu=mtu)
        pumps = []
        for number, machine in enumerate(machines):
            ours, theirs = OUTER[family][number], OUTER[family][1 - number]
            machine.address("eth0", f"{ours}/{24 if family == 4 else 64}")
            for feature, state in LINKS[link]:
                machine.run("ethtool", "-K", "eth0", feature, state)
            side = ("left", "right")[number]
            argv = (side, "offload" if offload else "none", ours, theirs, str(queues))
            module = ("-m", "tests.fastpath.pump_end")
            pumps.append(machine.start(sys.executable, *module, *argv, cwd=REPOSITORY))
        for pump in pumps:
            pump.wait_for("ready", 60.0)
        return machines, pumps

    return make


@pytest.mark.root
@pytest.mark.parametrize(
    ("offload", "link", "family", "queues"),
    [
        (False, "fast", 4, 1),
        (True, "fast", 4, 1),
        (True, "plain", 4, 1),
        (True, "fast", 6, 1),
        (True, "no checksums", 4, 1),
        (True, "narrow", 4, 1),
        (True, "narrow", 6, 1),
        (False, "narrow", 4, 1),
        (True, "fast", 4, 2),
        (False, "fast", 6, 4),
    ],
)
def test_a_file_and_pings_of_all_sizes_pass(
    hosts: Callable[..., tuple[list[Namespace], list[Process]]],
    tmp_path: Path,
    offload: bool,
    link: str,
    family: int,
    queues: int,
) -> None:
    (left, right), pumps = hosts(offload, link, family, queues)
    features = left.run("ethtool", "-k", "at0").stdout
    assert ("tcp-segmentation-offload: on" in features) is offload
    said = json.loads(pumps[0].output().partition("offloads ")[2].partition("\n")[0])
    for name, feature in FEATURES.items():
        assert (said[name] == "on") is (f"{feature}: on" in features), (said, features)
    assert (said[f"udp_segment{family}"], said[f"udp_segment{10 - family}"]) == ("on", "absent")
    file = tmp_path / "file"
    file.write_bytes(random.Random(family).randbytes(OCTETS))
    target = str(IDS["right"])
    for size in (0, 1, 56, 1300, 1352, 4000):  # the last one in fragments
        left.run("ping", "-c", "3", "-i", "0.01", "-W", "30", "-s", str(size), target)
    server = right.start(
        *(sys.executable, "-u", "-m", "http.server", "8000", "--bind", target),
        *("--directory", str(tmp_path)),
    )
    server.wait_for("Serving", 60.0)
    url = f"http://[{target}]:8000/file"
    left.run("curl", "-sS", "-o", str(tmp_path / "copy"), "--max-time", "120", url, timeout=130)
    copied = hashlib.sha256((tmp_path / "copy").read_bytes()).digest()
    assert copied == hashlib.sha256(file.read_bytes()).digest()

    counters = []
    for pump in pumps:
        assert pump.stop(signal.SIGTERM) == 0, pump.tail()
        counters.append(json.loads(pump.output().partition("counters ")[2]))
    assert counters[0]["rx_octets"] > OCTETS
    # Small packets have no reason to be lost; a full queue may lose some of the large flow.
    drops = {name for one in counters for name in one if name.startswith("drop_")}
    assert drops <= {"drop_no_flow", "drop_udp_send"}, counters


STALLED = 1500  # packets that wait for a host without a processor; TUN's own queue holds 500
SENDER = """
import socket, sys
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    sock.sendto(bytes(64), (sys.argv[1], 7000))
"""
RECEIVER = """
import socket, sys
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 16 * 2**20)  # SO_RCVBUFFORCE
sock.bind(("::", 7000))
print("listens", flush=True)
for _ in range(int(sys.argv[1])):
    sock.recv(2048)
print("all came", flush=True)
"""


@pytest.mark.root
def test_a_host_that_stood_still_for_a_moment_has_lost_nothing(
    hosts: Callable[..., tuple[list[Namespace], list[Process]]],
) -> None:
    (left, right), pumps = hosts(True, "fast", 4)
    receiver = right.start(sys.executable, "-u", "-c", RECEIVER, str(STALLED))
    receiver.wait_for("listens", 60.0)
    os.kill(pumps[0].pid, signal.SIGSTOP)
    try:
        left.run(sys.executable, "-c", SENDER, str(IDS["right"]), str(STALLED))
    finally:
        os.kill(pumps[0].pid, signal.SIGCONT)
    receiver.wait_for("all came", 60.0)
