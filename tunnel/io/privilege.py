"""Few privileges: one capability, CAP_NET_ADMIN, and only until the device is configured.

Three ways to run, which :mod:`tunnel.io.device` tells apart by what the kernel lets it do: with
CAP_NET_ADMIN (root, or an ordinary user with the ambient capability, or root of a user
namespace); or with none at all, on a persistent device that the user owns.
"""

from __future__ import annotations

import os
from pathlib import Path

from tunnel.io import capability


class PrivilegeError(Exception):
    """Capabilities could not be dropped; the text says why and what to do."""


def can_configure() -> bool:
    """Whether this process may make and configure devices (CAP_NET_ADMIN is effective)."""
    return capability.has(capability.NET_ADMIN)


def drop_all() -> None:
    """Leaves this process without any capability, for good, and with no_new_privs.

    Call it after devices and sockets are open and before any thread is started. Raises
    :class:`PrivilegeError` if a thread still holds one: capabilities are dropped thread by thread.
    """
    try:
        capability.keep_only(frozenset())
    except OSError as problem:
        reason = f"the capabilities could not be dropped ({os.strerror(problem.errno or 0)})"
        raise PrivilegeError(f"{reason}; run with fewer, see `autotunnel service print`") from None
    for task in Path("/proc/self/task").glob("*/status"):
        held = capability.sets(task)
        if held["CapPrm"] or held["CapEff"] or held["CapAmb"]:
            reason = f"thread {task.parent.name} still holds capabilities"
            raise PrivilegeError(f"{reason}; this is a bug: threads start after the drop")
