"""Which help of the kernel is in use, why another is not, and what that costs.

``status --json`` shows it as ``host.offloads``; ``doctor`` says what a missing one costs, with
figures of one run on one machine (decision 0032), so as an order of magnitude.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping
from typing import Any

from fastpath.types import Offload, OffloadState

SINCE = {
    Offload.TUN_CHECKSUM: "2.6.27",
    Offload.TUN_TSO4: "2.6.27",
    Offload.TUN_TSO6: "2.6.27",
    Offload.TUN_USO: "6.2",
    Offload.UDP_SEGMENT4: "4.18",
    Offload.UDP_SEGMENT6: "4.18",
    Offload.UDP_GRO4: "5.0",
    Offload.UDP_GRO6: "5.0",
}
"""The first Linux that has it."""

_UDP_SEGMENT, _UDP_GRO = 103, 104  # of <linux/udp.h>
_UDP = (
    (socket.AF_INET, Offload.UDP_SEGMENT4, Offload.UDP_GRO4),
    (socket.AF_INET6, Offload.UDP_SEGMENT6, Offload.UDP_GRO6),
)

_LARGE = "every packet of TCP costs a system call of its own: 1.3 to 1.7 times the CPU"
_OUT = "packets over {} pass the kernel one by one on their way out: 2 to 4 times the CPU"
_IN = "packets over {} pass the kernel one by one on their way in: up to twice the CPU"
_COSTS = {
    Offload.TUN_CHECKSUM: "the kernel computes each checksum, before we compute it anew",
    Offload.TUN_TSO4: _LARGE,
    Offload.TUN_TSO6: _LARGE,
    Offload.TUN_USO: "every datagram for an application costs a system call of its own",
    Offload.UDP_SEGMENT4: _OUT.format("IPv4"),
    Offload.UDP_SEGMENT6: _OUT.format("IPv6"),
    Offload.UDP_GRO4: _IN.format("IPv4"),
    Offload.UDP_GRO6: _IN.format("IPv6"),
}


def states_of(
    device: Mapping[Offload, OffloadState], pump: Mapping[Offload, OffloadState]
) -> dict[Offload, OffloadState]:
    """All of them. ``TUN_USO`` is on when TUN both gives (device) and takes (pump) such frames."""
    states = {**device, **pump}
    given = device[Offload.TUN_USO]
    if given is not OffloadState.ON:
        states[Offload.TUN_USO] = given
    return {name: states[name] for name in Offload}


def reason_of(name: Offload, state: OffloadState, engine: str) -> str | None:
    """Why it is not in use; ``None`` when it is."""
    match state:
        case OffloadState.ON:
            return None
        case OffloadState.OFF if engine == "native":
            return "engine.offload is false"
        case OffloadState.OFF:
            return f"the {engine} engine takes packets one by one"
        case OffloadState.UNKNOWN:
            return f"Linux {platform.release()} does not have it, {SINCE[name]} does"
        case OffloadState.REFUSED:
            return "a link refused it (no checksums there, or IPsec of the kernel); soon again"
        case OffloadState.ABSENT:
            return f"there is no socket for IPv{name[-1]}"


def report(states: Mapping[Offload, OffloadState], engine: str) -> dict[str, dict[str, Any]]:
    """For ``status --json``: ``{name: {"on": bool, "state": …, "reason": … or null}}``."""
    return {
        str(name): {
            "on": state is OffloadState.ON,
            "state": str(state),
            "reason": reason_of(name, state, engine),
        }
        for name, state in states.items()
    }


def cost_of(name: str) -> str:
    """What it costs to be without this one."""
    return _COSTS[Offload(name)]


def fix_of(state: str, engine: str) -> str:
    """What would bring those of this state back."""
    match OffloadState(state):
        case OffloadState.OFF if engine == "native":
            return "set engine.offload to true"
        case OffloadState.OFF:
            return 'set engine.name to "auto"'
        case OffloadState.UNKNOWN:
            return "run a newer kernel"
        case OffloadState.REFUSED:
            return "compare `ethtool -k DEVICE` and `ip xfrm policy` of the outer link"
        case _:
            return ""


def known_to_udp() -> dict[Offload, OffloadState]:
    """What this kernel's UDP has, found on sockets of our own."""
    states: dict[Offload, OffloadState] = {}
    for family, segment, gro in _UDP:
        try:
            probe = socket.socket(family, socket.SOCK_DGRAM)
        except OSError:
            states |= dict.fromkeys((segment, gro), OffloadState.ABSENT)
            continue
        with probe:
            for name, option in ((segment, _UDP_SEGMENT), (gro, _UDP_GRO)):
                try:
                    probe.getsockopt(socket.IPPROTO_UDP, option)
                    states[name] = OffloadState.ON
                except OSError:
                    states[name] = OffloadState.UNKNOWN
    return states
