"""Where configuration files stand."""

from __future__ import annotations

import os
from pathlib import Path


def default_path(name: str = "config.toml") -> Path:
    """The file that is read without ``-c``: the user's if it is there, else the machine's.

    With neither there, the place where ``init`` writes: /etc for root, else the user's.
    """
    user = user_folder() / name
    machine = Path("/etc/autotunnel") / name
    if user.exists():
        return user
    return machine if machine.exists() or os.geteuid() == 0 else user


def user_folder() -> Path:
    """``$XDG_CONFIG_HOME/autotunnel``, by its specification ``~/.config`` if unset."""
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    folder = Path(base) if base.startswith("/") else Path("~/.config").expanduser()
    return folder / "autotunnel"
