"""On a kernel whose TUN takes no frames of datagrams (before 6.2) none is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fastpath.inner_flows import udp
from tests.fastpath.test_native_merge import VnetRig, merged, packets_of, stream

HERE = Path(__file__).parent
DATAGRAMS = 12


def story() -> None:
    """What the subprocess does: two runs of datagrams, then one of TCP."""
    rig = VnetRig()
    before = rig.pump.offloads()
    counts = merged(rig, [udp(bytes([n]) * 40) for n in range(DATAGRAMS)])
    after = rig.pump.offloads()
    rig.send([udp(bytes([n]) * 50) for n in range(DATAGRAMS)])
    again = packets_of(rig.frames(DATAGRAMS))
    rig.close()
    tcp = VnetRig()
    counted = {"first": counts, "again": len(again), "tcp": merged(tcp, stream(9))}
    print(json.dumps(counted | {"before": before["uso"], "after": after["uso"]}))
    tcp.close()


def test_frames_of_datagrams_that_tun_refuses_are_cut_again(tmp_path: Path) -> None:
    shim = tmp_path / "old_kernel.so"
    source = HERE / "old_kernel.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import story; story()"],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {
        "first": [1] * DATAGRAMS,
        "again": DATAGRAMS,
        "tcp": [9],
        "before": True,
        "after": False,
    }
