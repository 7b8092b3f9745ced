"""Opens a device as a host would, drops everything, asks for routes, and says what happened.

``probe.py NAME [QUEUES]``
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from tunnel.io import capability, privilege
from tunnel.io.device import Device, DeviceError, open_device

HOST_ID = IPv6Address("fd00::1")
PEER = IPv6Address("fd00::2")
PEER_WITHOUT_ROUTE = IPv6Address("fd00::3")


def words(call: Callable[..., Any], *arguments: Any) -> str:
    """The sentence of a DeviceError, or an empty one."""
    try:
        call(*arguments)
    except DeviceError as problem:
        return str(problem)
    return ""


def routes() -> list[str]:
    said = subprocess.run(["ip", "-6", "route"], capture_output=True, text=True, check=True)
    return [
        line.split()[0]
        for line in said.stdout.splitlines()
        if " dev ptest" in line and line[0:4] != "fe80"
    ]


def may_still_configure(name: str) -> bool:
    done = subprocess.run(["ip", "link", "set", name, "mtu", "1300"], capture_output=True)
    return done.returncode == 0


def examine(device: Device) -> dict[str, Any]:
    before = capability.sets(Path("/proc/self/status"))
    privilege.drop_all()
    facts: dict[str, Any] = {
        "uid": os.getuid(),
        "before": before["CapEff"],
        "after": capability.sets(Path("/proc/self/status")),
        "helper": device.helper_pid and capability.sets(Path(f"/proc/{device.helper_pid}/status")),
        "may_still_configure": may_still_configure(device.name),
        "first": words(device.add_route, PEER),
        "second": words(device.add_route, PEER_WITHOUT_ROUTE),
        "wide": words(device.add_route, IPv6Address("2001:db8::1")),
        "routes": routes(),
        "inheritable": any(map(os.get_inheritable, device.fds)),
        "blocking": any(map(os.get_blocking, device.fds)),
        "queues": len(device.fds),
        "again": words(partial(open_device, queues=2), device.name, HOST_ID, 1400),
    }
    device.remove_route(PEER)
    facts["routes_after_removal"] = routes()
    helper = device.helper_pid
    device.close()
    facts["helper_ended"] = helper is None or not Path(f"/proc/{helper}").exists()
    facts["routes_after_close"] = routes()
    return facts


def main(name: str, queues: str = "1") -> None:
    try:
        facts = examine(open_device(name, HOST_ID, 1400, queues=int(queues)))
    except DeviceError as problem:
        facts = {"error": str(problem)}
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
