"""Names that say whose they are, so that a killed run's leftovers can be told and removed.

All that a lab makes outside its own processes carries ``at<pid>-<run>-``: namespaces, their
``/etc/netns`` folders, and its folder of files. A name whose process is gone is a leftover.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

from tunnel.io.lab.process import LabError, alive, run, wait_until

NETNS_FOLDER = Path("/run/netns")
ETC_FOLDER = Path("/etc/netns")
FOLDER_PREFIX = "autotunnel-lab-"
_NAME = re.compile(r"at(\d+)-[0-9a-f]{6}-")


def new_prefix() -> str:
    """A prefix that no other lab has, with our pid in it."""
    return f"at{os.getpid()}-{secrets.token_hex(3)}-"


def owner_pid(name: str) -> int | None:
    """The pid in a lab's name; ``None`` if the name is not a lab's."""
    found = _NAME.match(name)
    return int(found[1]) if found else None


def remove_namespace(name: str) -> None:
    """End what runs in the namespace, then remove it and its ``/etc/netns`` folder."""
    if (NETNS_FOLDER / name).exists():
        end_processes(name)
        run(["ip", "netns", "delete", name])
    shutil.rmtree(ETC_FOLDER / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # others' folders may be in it; then it stays
        ETC_FOLDER.rmdir()


def processes(name: str) -> list[int]:
    """The ids of the processes that run in the namespace."""
    return [int(word) for word in run(["ip", "netns", "pids", name]).stdout.split()]


def end_processes(name: str, timeout: float = 3.0) -> None:
    """End all processes in the namespace: politely, then not."""
    for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, timeout)):
        for pid in processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(LabError):
            wait_until(lambda: not processes(name), patience, f"{name} is empty")
            return


def remove_all_of(prefix: str) -> None:
    """Remove the namespaces of one lab that nobody has removed."""
    for folder in (NETNS_FOLDER, ETC_FOLDER):
        for path in folder.glob(f"{prefix}*"):
            remove_namespace(path.name)


def remove_leftovers() -> list[str]:
    """Remove what dead runs of this user left behind; the names of what was removed."""
    removed = []
    for folder in (NETNS_FOLDER, ETC_FOLDER):
        for path in _dead(folder, ""):
            with contextlib.suppress(LabError):  # another lab may be at the same leftover
                remove_namespace(path.name)
                removed.append(path.name)
    for path in _dead(Path(tempfile.gettempdir()), FOLDER_PREFIX):
        shutil.rmtree(path, ignore_errors=True)
        removed.append(path.name)
    return removed


def _dead(folder: Path, prefix: str) -> list[Path]:
    found = []
    for path in folder.glob(f"{prefix}at*"):
        pid = owner_pid(path.name.removeprefix(prefix))
        with contextlib.suppress(FileNotFoundError):
            if pid is not None and path.stat().st_uid == os.getuid() and not alive(pid):
                found.append(path)
    return found
