"""The real systemd-resolved, with a system bus of its own, on one machine of a lab.

Its package would take over this machine's ``/etc/resolv.conf``, so ``scripts/setup`` unpacks it and
does not install it. The machine gets a mount namespace in which ``/run`` is empty; every program of
it runs there, so that nothing ever talks to a bus or a resolver of the real machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnel.io.lab import Namespace, Process, wait_until
from tunnel.io.lab.leftovers import ETC_FOLDER

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / ".setup" / "unpacked"
STUB = "127.0.0.53"
_USER = "systemd-resolve"
_USERS = ((_USER, 996), ("avahi", 995), ("netdev", 994))

_BUS = """<busconfig>
<type>system</type>
<listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth>
<policy context="default">
<allow user="*"/><allow own="*"/>
<allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="signal"/>
<allow receive_type="method_return"/><allow receive_type="error"/>
</policy>
</busconfig>
"""


def program(path: str) -> Path:
    """A program of a package that ``scripts/setup test`` has unpacked; ``path`` is below ``/usr``,
    or below the root where the distribution has not merged the two."""
    for found in (UNPACKED / "usr" / path, UNPACKED / path):
        if found.exists():
            return found
    pytest.skip(f"there is no {UNPACKED / path}; `scripts/setup test` unpacks it")


def libraries() -> str:
    """Where the unpacked programs find the unpacked libraries."""
    folders = {str(path.parent) for path in (UNPACKED / "usr/lib").rglob("*.so*")}
    folders |= {str(path.parent) for path in (UNPACKED / "lib").rglob("libsystemd-shared*")}
    return ":".join(sorted(folders))


class ResolvedMachine:
    """Gives ``machine`` a system bus, and resolved beside it when :meth:`start` is called.

    ``upstream`` is the server that resolved asks for all names that nobody else has.
    """

    def __init__(self, machine: Namespace, upstream: str) -> None:
        self.machine = machine
        self.env = {"LD_LIBRARY_PATH": libraries()}
        self._daemon = program("lib/systemd/systemd-resolved")
        self.process: Process | None = None
        machine.set_resolver(STUB)
        etc = ETC_FOLDER / machine.name
        people = "".join(f"{user}:x:{number}:{number}::/:/bin/false\n" for user, number in _USERS)
        groups = "".join(f"{user}:x:{number}:\n" for user, number in _USERS)
        (etc / "passwd").write_text(Path("/etc/passwd").read_text().rstrip() + f"\n{people}")
        (etc / "group").write_text(Path("/etc/group").read_text().rstrip() + f"\n{groups}")
        bus = machine.folder / "bus.conf"
        bus.write_text(_BUS)
        conf = f"[Resolve]\\nDNS={upstream}\\nFallbackDNS=\\nLLMNR=no\\nMulticastDNS=no\\n"
        self._bus = machine.start(
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec"),
            "mount -t tmpfs tmpfs /run; mkdir -p /run/dbus /run/systemd/resolved.conf.d;"
            f"printf '{conf}' >/run/systemd/resolved.conf.d/lab.conf;"
            "touch /run/ready;"
            f"exec dbus-daemon --nofork --nopidfile --config-file={bus}",
            name="dbus",
        )
        machine.command = self._command
        wait_until(
            lambda: (
                machine.run("test", "-S", "/run/dbus/system_bus_socket", check=False).returncode
                == 0
            ),
            60,
            "the bus stands",
        )

    def _command(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self._bus.pid), "-m", "-n", *argv]

    def start(self) -> None:
        """Start resolved, and wait until it answers on the bus."""
        self.machine.run("install", "-d", "-o", _USER, "-g", _USER, "/run/systemd/resolve")
        self.process = self.machine.start(str(self._daemon), name="resolved", env=self.env)
        wait_until(self.answers, 60, "resolved answers")

    def answers(self) -> bool:
        """Whether resolved is on the bus."""
        assert self.process is not None
        assert self.process.running, self.process.tail()
        ping = ("org.freedesktop.resolve1", "/", "org.freedesktop.DBus.Peer", "Ping")
        command = ("busctl", "--system", "--auto-start=no", "call", *ping)
        return self.machine.run(*command, check=False).returncode == 0

    def stop(self) -> None:
        """End resolved, as a restart of it begins."""
        assert self.process is not None
        self.process.stop()

    def ctl(self, *words: str) -> str:
        """What resolvectl says."""
        tool = str(program("bin/resolvectl"))
        return self.machine.run(tool, "--no-pager", *words, env=self.env, check=False).stdout
