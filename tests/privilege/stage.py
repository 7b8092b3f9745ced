"""A machine for one program, in namespaces of its own: ``python -m tests.privilege.stage …``.

Run by ``unshare --mount --net --propagation private``. An ordinary user must be able to open
/dev/net/tun (a node of mode 0666 on a private tmpfs, since machines differ) and to run this
Python, which may stand in a folder that only root enters: such a folder is covered by a tmpfs
that shows only what is needed. Nothing of it is seen outside, and it ends with the program.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELF = Path("/mnt")
HOME = SHELF / "home"
NOBODY = 65534


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def blocker(path: Path) -> Path | None:
    """The topmost folder above ``path`` that an ordinary user may not enter."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None


def open_the_way(paths: list[Path]) -> None:
    """Makes ``paths`` reachable for everybody, in this mount namespace only."""
    blocked = {path: found for path in paths if (found := blocker(path)) is not None}
    shelf = SHELF
    for number, path in enumerate(blocked):
        (shelf / str(number)).mkdir()
        mount("--rbind", str(path), str(shelf / str(number)))
    for folder in sorted(set(blocked.values())):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
    for number, path in enumerate(blocked):
        path.mkdir(parents=True, exist_ok=True)
        mount("--rbind", str(shelf / str(number)), str(path))
    os.chdir(ROOT)  # the old working directory is the covered one


def make_tun_node() -> None:
    """A /dev/net/tun that everybody may open, as udev makes it on most machines."""
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/dev/net")
    os.umask(0)
    os.mknod("/dev/net/tun", stat.S_IFCHR | 0o666, os.makedev(10, 200))
    os.umask(0o022)


def make_home() -> None:
    """A folder for the user's files, which ends with the mount namespace."""
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(SHELF))
    HOME.mkdir(mode=0o700)
    os.chown(HOME, NOBODY, NOBODY)


def main(command: list[str]) -> None:
    make_home()
    open_the_way([Path(sys.base_prefix), Path(sys.prefix), ROOT])
    make_tun_node()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
