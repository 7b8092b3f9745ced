"""Linux capabilities of this process: read, keep some, drop all (capabilities(7), prctl(2)).

Numbers are those of <linux/capability.h> and <linux/prctl.h>, which the kernel never changes.
libc is called directly, since no maintained Python binding exists. Capabilities belong to
threads: what is dropped here is dropped for the calling thread, so drop before making others.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

NET_BIND_SERVICE = 10
NET_ADMIN = 12

_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two 32-bit words per set
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4
_LAST = 63

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Words(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def has(capability: int) -> bool:
    """Whether the calling thread may use ``capability`` now (its effective set)."""
    return bool(sets(Path("/proc/thread-self/status"))["CapEff"] >> capability & 1)


def sets(status: Path) -> dict[str, int]:
    """CapInh, CapPrm, CapEff, CapBnd, CapAmb and NoNewPrivs of a /proc/…/status file; zeros where
    the system has none."""
    found = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"), 0)
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        key, _, value = line.partition(":")
        if key in found:
            found[key] = int(value, 16)
    return found


def end_with(parent: int) -> None:
    """Lets this process get SIGTERM when its parent, the process ``parent``, is killed."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it was killed just before
            os.kill(os.getpid(), signal.SIGTERM)


def keep_only(capabilities: frozenset[int]) -> None:
    """Reduces the calling thread to ``capabilities`` for good, and those survive an exec.

    Permitted, effective, inheritable and ambient become exactly this set; the bounding set too
    where CAP_SETPCAP allows it; no_new_privs is set, so that no program run from here gains any.
    Raises OSError if the kernel refuses, which includes asking for one that is not permitted.
    """
    if _LIBC is None:
        return
    for capability in range(_LAST + 1):
        if capability not in capabilities:
            _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused without CAP_SETPCAP: fine
    _LIBC.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set(sum(1 << capability for capability in capabilities))
    for capability in capabilities:
        _check(_LIBC.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, capability, 0, 0))
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _set(mask: int) -> None:
    assert _LIBC is not None
    words = (_Words * 2)()
    for index in range(2):
        part = mask >> (32 * index) & 0xFFFFFFFF
        words[index] = _Words(part, part, part)
    _check(_LIBC.capset(ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(words)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
