"""Which help of the kernel is in use: in ``status``, and in ``doctor`` with what it costs."""

from __future__ import annotations

import pytest

from fastpath.types import Offload, OffloadState
from tests.cli.test_status import FACTS, shown
from tunnel.cli import checks
from tunnel.cli.checks import State
from tunnel.io import offloads

ON, OFF, UNKNOWN = OffloadState.ON, OffloadState.OFF, OffloadState.UNKNOWN
REFUSED, ABSENT = OffloadState.REFUSED, OffloadState.ABSENT
TUN = [name for name in Offload if name.startswith("tun_")]
UDP = [name for name in Offload if name.startswith("udp_")]


def states(**changed: OffloadState) -> dict[Offload, OffloadState]:
    """All on, but these."""
    return {name: changed.get(name, ON) for name in Offload}


def host_with(engine: str = "native", **changed: OffloadState) -> dict[str, object]:
    return {"engine": engine, "offloads": offloads.report(states(**changed), engine)}


def test_runs_of_datagrams_need_both_directions_of_tun() -> None:
    device = dict.fromkeys(TUN, ON)
    pump = dict.fromkeys((*UDP, Offload.TUN_USO), ON)
    assert offloads.states_of(device, pump) == states()
    refused = pump | {Offload.TUN_USO: UNKNOWN}
    assert offloads.states_of(device, refused) == states(tun_uso=UNKNOWN)
    assert offloads.states_of(device | {Offload.TUN_USO: OFF}, pump) == states(tun_uso=OFF)


def test_each_has_its_state_and_its_reason_in_json() -> None:
    report = offloads.report(states(tun_uso=UNKNOWN, udp_gro6=ABSENT, udp_segment4=REFUSED), "x")
    assert report["tun_tso6"] == {"on": True, "state": "on", "reason": None}
    reasons = {name: one["reason"] for name, one in report.items() if not one["on"]}
    assert reasons.keys() == {"tun_uso", "udp_gro6", "udp_segment4"}
    assert "does not have it, 6.2 does" in reasons["tun_uso"]
    assert reasons["udp_gro6"] == "there is no socket for IPv6"
    assert "a link refused it" in reasons["udp_segment4"]


def test_all_in_use_is_fine_and_so_is_a_family_that_is_not_there() -> None:
    found = checks.offloads(host_with(udp_gro6=ABSENT, udp_segment6=ABSENT))
    assert (found.state, found.fix) == (State.OK, "")
    assert "udp_segment4" in found.found
    assert "udp_segment6" not in found.found


@pytest.mark.parametrize(
    ("engine", "state", "reason", "fix"),
    [
        ("native", UNKNOWN, "does not have it, 5.0 does", "run a newer kernel"),
        ("native", REFUSED, "a link refused it", "ethtool -k"),
        ("native", OFF, "engine.offload is false", "set engine.offload to true"),
        ("reference", OFF, "the reference engine takes", 'set engine.name to "auto"'),
    ],
)
def test_a_missing_one_has_its_cost_its_reason_and_its_fix(
    engine: str, state: OffloadState, reason: str, fix: str
) -> None:
    found = checks.offloads(host_with(engine, udp_gro4=state))
    assert found.state is State.WARNING
    assert f"without udp_gro4 {offloads.cost_of('udp_gro4')} (" in found.found
    assert reason in found.found
    assert fix in found.fix


def test_without_a_host_the_kernel_s_own_udp_is_looked_at() -> None:
    found = checks.offloads(None)
    assert "udp_segment4" in found.found
    assert "when a host runs" in found.found


def test_every_one_has_a_first_kernel_and_a_cost() -> None:
    assert offloads.SINCE.keys() == set(Offload)
    assert all(offloads.cost_of(name) for name in Offload)


def test_a_person_sees_them_in_one_line_and_the_missing_ones_with_their_reason() -> None:
    host = {**FACTS["host"], **host_with(tun_uso=UNKNOWN, udp_gro6=ABSENT)}
    lines = [line.strip() for line in shown({**FACTS, "host": host}).splitlines()]
    (used,) = [line for line in lines if line.startswith("offloads")]
    assert "tun_tso4" in used
    assert "tun_uso" not in used
    assert any(line.startswith("not tun_uso: Linux ") for line in lines)
    assert "not udp_gro6: there is no socket for IPv6" in lines


def test_a_person_sees_the_path_mtu_of_a_peer() -> None:
    peer = {**FACTS["peers"][0], "mtu": 1322}
    (line,) = [one for one in shown({**FACTS, "peers": [peer]}).splitlines() if "laptop " in one]
    assert " 1322 " in line
