"""The life of one ``up`` with a static peer, and what the kernel says of its processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.privilege.probe import HOST_ID, PEER
from tests.privilege.stage import HOME
from tunnel.io import capability

CONFIG = HOME / "config.toml"
TEXT = f"""
[host]
name = "desk.example"
id = "{HOST_ID}"
device = "ptest0"
state_dir = "state"
[[peer]]
name = "gw.example"
id = "{PEER}"
endpoint = "127.0.0.1:4501"
psk_file = "gw.psk"
"""


def write_files() -> None:
    CONFIG.write_text(TEXT)
    key = HOME / "gw.psk"
    key.touch(mode=0o600)
    key.write_text("a secret of two hosts\n")


def ours(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunnel", *arguments, "-c", str(CONFIG)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False).stdout


def processes(pid: int) -> list[dict[str, int]]:
    """The capability sets of every thread of ``pid``."""
    return [capability.sets(task) for task in Path(f"/proc/{pid}/task").glob("*/status")]


def live() -> dict[str, Any]:
    write_files()
    host = subprocess.Popen(
        [sys.executable, "-m", "tunnel", "up", "--json", "-c", str(CONFIG)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert host.stdout is not None
    told = json.loads(host.stdout.readline())
    if "error" in told:
        said = host.communicate(timeout=90)[1]
        return {"error": told["error"], "said": said, "code": host.returncode}
    children = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()
    facts = {
        "told": told,
        "threads": processes(host.pid),
        "helpers": [thread for child in children for thread in processes(int(child))],
        "status": json.loads(ours("status", "--json").stdout),
        "socket_mode": (HOME / "state" / "control.sock").stat().st_mode & 0o777,
        "routes": ip("-6", "route", "show", str(PEER)).split()[:3],
        "second": ours("up").stderr,
    }
    facts["down"] = ours("down", "--json").returncode
    said = host.communicate(timeout=90)[1]
    return {
        **facts,
        "code": host.returncode,
        "said": said,
        "link_left": ip("link", "show", "ptest0"),
        "route_left": ip("-6", "route", "show", str(PEER)),
        "files_left": sorted(path.name for path in (HOME / "state").iterdir()),
    }


if __name__ == "__main__":
    print(json.dumps(live()))
