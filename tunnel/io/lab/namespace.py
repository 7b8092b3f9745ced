"""One network namespace: a machine of the lab."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunnel.io.lab.leftovers import ETC_FOLDER, processes, remove_namespace
from tunnel.io.lab.process import Process, run, wait_until

# glibc must ask the resolver of this namespace, not a daemon of the machine over a Unix socket.
NSSWITCH = "hosts: files dns\npasswd: files\ngroup: files\nservices: files\nprotocols: files\n"
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


class Namespace:
    """A machine: ``role`` is its name in the story, ``name`` the system's name for it.

    ``started`` is the lab's list of all programs that run in the background, oldest first.
    """

    def __init__(self, role: str, prefix: str, folder: Path, started: list[Process]) -> None:
        self.role = role
        self.name = f"{prefix}{role}"
        self.folder = folder / role
        self.folder.mkdir()
        self._started = started
        try:
            run(["ip", "netns", "add", self.name])
            # Duplicate address detection would delay every address of the lab by a second.
            for scope in ("all", "default"):
                self.write_sysctl(f"net/ipv6/conf/{scope}/accept_dad", "0")
            self.ip("link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    # --- Programs ---------------------------------------------------------------------------

    def run(
        self,
        *argv: str,
        timeout: float = 60.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end; :class:`LabError` if it fails or takes too long."""
        return run(self.command(*argv), timeout=timeout, check=check, env=env, stdin=stdin)

    def start(
        self,
        *argv: str,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout_file: Path | None = None,
    ) -> Process:
        """Start a program here in the background; its log is kept in the namespace's folder."""
        title = name or Path(argv[0]).name
        process = Process(
            f"{title} on {self.role}",
            self.command(*argv),
            self.folder / f"{title}.log",
            env=env,
            cwd=cwd,
            stdout_file=stdout_file,
        )
        self._started.append(process)
        return process

    def command(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` here."""
        return ["ip", "netns", "exec", self.name, *argv]

    def pids(self) -> list[int]:
        """The ids of all processes that run here, whoever started them."""
        return processes(self.name)

    # --- Network ----------------------------------------------------------------------------

    def ip(self, *argv: str) -> None:
        """``ip`` in this namespace, for example ``ip("route", "add", …)``."""
        run(["ip", "-n", self.name, *argv])

    def ip_json(self, *argv: str) -> list[dict[str, Any]]:
        """What ``ip -json`` says in this namespace."""
        text = run(["ip", "-n", self.name, "-json", *argv]).stdout
        found: list[dict[str, Any]] = json.loads(text or "[]")
        return [entry for entry in found if entry]

    def address(self, device: str, *addresses: str) -> None:
        """Give ``device`` addresses (``address/prefix``) and bring it up."""
        for address in addresses:
            extra = ("nodad",) if ":" in address else ()
            self.ip("address", "add", address, "dev", device, *extra)
        self.ip("link", "set", device, "up")

    def gateway(self, address: str) -> None:
        """Send all that is not local through ``address``."""
        family = "-6" if ":" in address else "-4"
        self.ip(family, "route", "add", "default", "via", address)

    def write_sysctl(self, path: str, value: str) -> None:
        """Write ``/proc/sys/<path>`` of this namespace."""
        self.run("tee", f"/proc/sys/{path}", stdin=value)

    def set_resolver(self, *servers: str) -> None:
        """Programs started here from now on resolve names through ``servers``.

        ``ip netns exec`` shows them the files of ``/etc/netns/<name>``; the machine's own
        ``/etc/resolv.conf`` is never touched.
        """
        etc = ETC_FOLDER / self.name
        wait_until(lambda: _make_folder(etc), 5.0, f"{etc} could be made")
        lines = [f"nameserver {server}\n" for server in servers]
        (etc / "resolv.conf").write_text("".join(lines) + "options timeout:10 attempts:1\n")
        for name, text in (("nsswitch.conf", NSSWITCH), ("hosts", HOSTS)):
            if Path("/etc", name).exists():  # a bind mount needs something to cover
                (etc / name).write_text(text)

    # --- The end ----------------------------------------------------------------------------

    def close(self) -> None:
        """End whatever still runs here, then remove the namespace and its files."""
        remove_namespace(self.name)


def _make_folder(path: Path) -> bool:
    """Make ``path``; false when another lab, at its end, took the empty parent away just now."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        return False
    return True
