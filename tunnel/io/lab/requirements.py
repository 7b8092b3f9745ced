"""What a lab needs of the machine, and the sentence for what is missing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

CAP_SYS_ADMIN = 21
CAP_NET_ADMIN = 12


def missing(programs: tuple[str, ...] = (), *, tun: bool = True) -> str | None:
    """Say in one sentence, with the fix, why no lab can be built here; ``None`` if one can."""
    if sys.platform != "linux":
        return "network namespaces exist on Linux only; run this on a Linux machine"
    if os.geteuid() != 0 or not _capable(CAP_SYS_ADMIN) or not _capable(CAP_NET_ADMIN):
        return "making network namespaces needs root; run this as root (for example with sudo)"
    absent = [name for name in ("ip", *programs) if shutil.which(name) is None]
    if absent:
        return f"these programs are missing: {', '.join(absent)}; `scripts/setup` installs them"
    if tun and not Path("/dev/net/tun").is_char_device():
        return "/dev/net/tun is missing; load the kernel module with `modprobe tun`"
    return None


def _capable(capability: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return False
