"""Where files are, and how new ones are written: never over an old one, with the right mode."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tunnel.cli.talk import Failure
from tunnel.config import default_path
from tunnel.spelling import is_label

KEY_FILE = "account.key"
HOST_KEY_FILE, CERTIFICATE_FILE = "host.key", "host.crt"
_ROOM = 16384  # octets: more than what `join` writes
CA_FILE, CA_KEY_FILE = "ca.crt", "ca.key"


def default_label() -> str:
    """This machine's host name as a label. Raises :class:`Failure` if it cannot be one."""
    label = socket.gethostname().split(".")[0].lower()
    if not is_label(label):
        cause = f"this machine's name {label!r} is no host label"
        raise Failure(f"{cause}; name the host with --name LABEL")
    return label


def default_state_dir() -> Path:
    """Root: /var/lib/autotunnel; else $XDG_STATE_HOME/autotunnel, by its specification."""
    if os.geteuid() == 0:
        return Path("/var/lib/autotunnel")
    base = os.environ.get("XDG_STATE_HOME") or ""
    return (Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()) / (
        "autotunnel"
    )


def config_path(given: str | None) -> Path:
    """The file that ``-c`` names, else the default one; absolute."""
    return Path(given).absolute() if given else default_path().absolute()


def serve_path(given: str | None) -> Path:
    """As :func:`config_path`, for ``serve.toml``."""
    return Path(given).absolute() if given else default_path("serve.toml").absolute()


def refuse_overwrite(
    paths: Iterable[Path], fix: str = "move it away, or write elsewhere with -c FILE"
) -> None:
    """Raises :class:`Failure` if one of the files is there already."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise Failure(f"{path} exists and is not overwritten; {fix}")


def prove_writable(folder: Path) -> None:
    """Makes a folder, and a file in it that goes again. Raises OSError: before something is used
    up whose result could not be kept."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(bytes(_ROOM))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def all_or_nothing(paths: Iterable[Path]) -> Iterator[None]:
    """Takes new files away again where not all could be written."""
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def write_new(path: Path, text: str, mode: int) -> None:
    """Writes a file that must not exist yet, with ``mode`` from its first moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
