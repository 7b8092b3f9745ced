"""Where the kernel lacks an offload, or a link refuses one, nothing is lost, and it is said.

Each story runs in a process whose system calls fail as they do there (``old_kernel.c``).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastpath.types import Offload
from tests.fastpath.inner_flows import large, tcp, udp
from tests.fastpath.support import OUR_ID, PEER_ID, SPI, native_module, params
from tests.fastpath.test_native_merge import PATIENCE, VnetRig, merged, packets_of, stream

HERE = Path(__file__).parent
DATAGRAMS = 12
SEGMENTS, SEGMENT_OCTETS = 9, 1000
GSO_SECONDS = 61  # after which a run is tried again

Story = Callable[[], dict[str, Any]]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("shim") / "old_kernel.so"
    source = HERE / "old_kernel.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


def told(shim: Path, lacking: str, story: Story) -> dict[str, Any]:
    """What ``story`` says in a process on a kernel that lacks these."""
    name = story.__name__
    done = subprocess.run(
        [sys.executable, "-c", f"import json, {__name__} as t; print(json.dumps(t.{name}()))"],
        env={**os.environ, "LD_PRELOAD": str(shim), "OLD_KERNEL": lacking, "SHIM": str(shim)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def runs_of_datagrams() -> dict[str, Any]:
    """Two runs of datagrams, then one of TCP, come in."""
    rig = VnetRig()
    before = rig.pump.offloads()
    counts = merged(rig, [udp(bytes([n]) * 40) for n in range(DATAGRAMS)])
    after = rig.pump.offloads()
    rig.send([udp(bytes([n]) * 50) for n in range(DATAGRAMS)])
    again = packets_of(rig.frames(DATAGRAMS))
    rig.close()
    lone = VnetRig()
    counted = {"first": counts, "again": len(again), "tcp": merged(lone, stream(9))}
    lone.close()
    return counted | {"before": before[Offload.TUN_USO], "after": after[Offload.TUN_USO]}


def test_frames_of_datagrams_that_tun_refuses_are_cut_again(shim: Path) -> None:
    assert told(shim, "uso", runs_of_datagrams) == {
        "first": [1] * DATAGRAMS,
        "again": DATAGRAMS,
        "tcp": [9],
        "before": "on",
        "after": "unknown",
    }


class Outward:
    """A pump with a socket of each family, whose TUN hands over large frames."""

    def __init__(self) -> None:
        self.near, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)
        self.sockets = {int(family): _pair(family) for family in (socket.AF_INET, socket.AF_INET6)}
        descriptors = [ours.fileno() for ours, _ in self.sockets.values()]
        make = native_module("_pump").NativePump
        self.pump = make(self.near.fileno(), *descriptors, OUR_ID, vnet_hdr=True)
        self.pump.install_outbound(params(spi=SPI))
        self.pump.start()

    def send(self, family: int) -> int:
        """One large frame leaves; how many datagrams came."""
        far = self.sockets[family][1]
        self.pump.set_flow(PEER_ID, SPI, far.getsockname()[:2])
        payload = bytes(SEGMENTS * SEGMENT_OCTETS)
        self.tun.send(large(tcp(payload, source=OUR_ID, destination=PEER_ID), SEGMENT_OCTETS))
        for _ in range(SEGMENTS):
            assert select.select([far], [], [], PATIENCE)[0], self.pump.counters()
            assert len(far.recv(2000)) > SEGMENT_OCTETS
        return SEGMENTS

    def state(self, name: Offload) -> str:
        return str(self.pump.offloads()[name])

    def close(self) -> dict[str, int]:
        """Ends; what was dropped."""
        self.pump.stop()
        for one in (self.near, self.tun, *(s for pair in self.sockets.values() for s in pair)):
            one.close()
        return {k: n for k, n in self.pump.counters().items() if k.startswith("drop_")}


def _pair(family: int) -> tuple[socket.socket, socket.socket]:
    ours, far = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    for one in (ours, far):
        one.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        one.setblocking(False)
    return ours, far


def frames_outward() -> dict[str, Any]:
    """A large frame leaves over each family, two times."""
    pump = Outward()
    for family in (socket.AF_INET, socket.AF_INET6) * 2:
        pump.send(family)
    states = {str(name): str(state) for name, state in pump.pump.offloads().items()}
    return {"drops": pump.close()} | states


UDP_ON = dict.fromkeys(("udp_segment4", "udp_segment6", "udp_gro4", "udp_gro6"), "on")


@pytest.mark.parametrize(
    ("lacking", "states"),
    [
        ("", {}),
        ("segment", {"udp_segment4": "unknown", "udp_segment6": "unknown"}),
        ("gro", {"udp_gro4": "unknown", "udp_gro6": "unknown"}),
        ("link4", {"udp_segment4": "refused"}),
        ("link6", {"udp_segment6": "refused"}),
    ],
)
def test_a_frame_leaves_whatever_udp_can_do(
    shim: Path, lacking: str, states: dict[str, str]
) -> None:
    said = told(shim, lacking, frames_outward)
    assert said == {"drops": {}, "tun_uso": "on"} | UDP_ON | states


def a_link_that_comes_to_its_senses() -> dict[str, Any]:
    """Refused, still refused a moment later, and allowed once its time is over."""
    shim = ctypes.CDLL(os.environ["SHIM"])
    pump, states = Outward(), list[str]()
    for seconds in (0, 1, GSO_SECONDS):
        shim.old_kernel_change(int(bool(states)), ctypes.c_long(seconds))
        pump.send(socket.AF_INET)
        states.append(pump.state(Offload.UDP_SEGMENT4))
    return {"states": states, "drops": pump.close()}


def test_a_link_that_refused_runs_is_asked_again_after_a_minute(shim: Path) -> None:
    said = told(shim, "link4", a_link_that_comes_to_its_senses)
    assert said == {"states": ["refused", "refused", "on"], "drops": {}}


def a_socket_without_checksums() -> dict[str, Any]:
    """The real kernel refuses runs on a socket that sends no checksums, each of them."""
    pump = Outward()
    ours, _ = pump.sockets[socket.AF_INET]
    ours.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
    pump.send(socket.AF_INET)
    return {"drops": pump.close()}


def test_a_run_that_the_kernel_refuses_goes_packet_by_packet(shim: Path) -> None:
    assert told(shim, "", a_socket_without_checksums) == {"drops": {}}


def a_device() -> dict[str, Any]:
    """What a device is granted; the ioctl goes no further than to the shim."""
    from tunnel.io import device

    asked: list[int] = []
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, argument: Any) -> int:
        if request != device._TUNSETOFFLOAD:
            return 0
        asked.append(argument)
        try:
            real(fd, request, argument)
        except OSError as problem:
            if problem.args[0] != 25:  # ENOTTY: the shim let it pass to what is no TUN device
                raise
        return 0

    pytest.MonkeyPatch().setattr(fcntl, "ioctl", ioctl)  # in a process of its own
    with socket.socket() as one:
        granted = device._set_offload(one.fileno(), True)
    return {"asked": asked} | {str(name): str(state) for name, state in granted.items()}


@pytest.mark.parametrize(
    ("lacking", "tso", "uso", "steps"),
    [("", "on", "on", 1), ("uso", "on", "unknown", 2), ("tso", "unknown", "unknown", 3)],
)
def test_tun_gives_what_the_kernel_grants(
    shim: Path, lacking: str, tso: str, uso: str, steps: int
) -> None:
    said = told(shim, lacking, a_device)
    assert len(said.pop("asked")) == steps
    assert said == {"tun_checksum": tso, "tun_tso4": tso, "tun_tso6": tso, "tun_uso": uso}
