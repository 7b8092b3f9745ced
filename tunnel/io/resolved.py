"""The account's names on a machine that runs systemd-resolved: routed to the stub resolver.

resolved(8) is told over D-Bus (org.freedesktop.resolve1(5)), for our device alone: its server is
the stub; the account's domain is a *route-only* domain (``~domain``: its names go there, and no
others); it is no default route for names. The reverse names of unique local addresses go there
too, since host ids are such; those that are none go on to resolved's own servers
(:mod:`discovery.io_forward`). Nothing of it touches a file.

The calls are made by busctl(1), which every machine with resolved has, rather than with a library
(decision 0047). It is undone at the end. After a crash resolved forgets it with the device; one
that persists has no carrier then, so that resolved does not use it; the next start tells it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import structlog

from tunnel.spelling import Endpoint

SOCKET: Final = Path("/run/systemd/resolve/io.systemd.Resolve")
"""What resolved listens on, made anew whenever it starts; anybody may see that."""
REVERSE: Final = "d.f.ip6.arpa"  # fd00::/8, RFC 4193 §3.1

_RESOLVED: Final = ("127.0.0.53", 53)
_LISTENER: Final = "3500007F:0035"  # 127.0.0.53 port 53, as the kernel writes it
_TIMEOUT: Final = 5.0  # seconds for one call
_AGAIN: Final = 5.0  # seconds between two looks whether resolved still knows
_MOST_DOUBLINGS: Final = 6  # of that, while it refuses: at most once in five minutes
_FIRST: Final = 3.0  # seconds that the start of a host waits for it

_OBJECT: Final = (
    "org.freedesktop.resolve1",
    "/org/freedesktop/resolve1",
    "org.freedesktop.resolve1.Manager",
)


class ResolvedError(Exception):
    """resolved did not do what it was asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """One method of resolved's manager: its D-Bus signature, and its arguments as words."""

    method: str
    signature: str
    arguments: tuple[str, ...]


def calls(index: int, domain: str, stub: Endpoint) -> list[Call]:
    """What makes resolved ask ``stub`` for the names of ``domain``; the server comes last, so that
    nothing is sent to it before it is known which names are."""
    link = str(index)
    address, port = ip_address(stub[0]), stub[1]
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    octets = [str(octet) for octet in address.packed]
    server = ("1", str(int(family)), str(len(octets)), *octets, str(port), "")
    routes = ("2", domain, "true", REVERSE, "true")
    return [
        Call("SetLinkDefaultRoute", "ib", (link, "false")),
        Call("SetLinkDomains", "ia(sb)", (link, *routes)),
        # The stub speaks plain DNS on loopback, and its zone is signed with TSIG, not DNSSEC.
        *(Call(f"SetLink{what}", "is", (link, "no")) for what in ("DNSOverTLS", "DNSSEC")),
        *(Call(f"SetLink{what}", "is", (link, "no")) for what in ("LLMNR", "MulticastDNS")),
        Call("SetLinkDNSEx", "ia(iayqs)", (link, *server)),
    ]


def revert_call(index: int) -> Call:
    """What makes resolved forget all that it was told of a link."""
    return Call("RevertLink", "i", (str(index),))


def by_hand(domain: str, device: str, stub: Endpoint) -> tuple[str, ...]:
    """The same in commands for a person."""
    text = f"[{stub[0]}]:{stub[1]}" if ":" in stub[0] else f"{stub[0]}:{stub[1]}"
    return (
        f"resolvectl dns {device} {text}",
        f"resolvectl domain {device} '~{domain}' '~{REVERSE}'",
        f"resolvectl default-route {device} false",
    )


def is_running(stub: Endpoint, its_socket: Path = SOCKET) -> bool:
    """Whether resolved runs, and on *our* network: in a network namespace its socket and folder may
    be those of the machine outside, where our device's index is another device's."""
    if _stamp(its_socket) is None:
        return False
    return _listens_here(stub) or _network_of("1") == _network_of("self")


def _stamp(its_socket: Path) -> tuple[int, int] | None:
    """What tells this run of resolved from another; ``None`` if it does not run."""
    try:
        about = its_socket.stat()
    except OSError:
        return None
    return about.st_ino, about.st_ctime_ns


def _listens_here(stub: Endpoint) -> bool:
    """Whether resolved has port 53 of its own address in our network namespace; not we."""
    if stub == _RESOLVED:
        return False
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/net/udp").read_text("ascii").splitlines()
        return any(_LISTENER in line.split()[1:2] for line in lines)
    return False


def _network_of(process: str) -> str:
    """The network namespace of a process; where we may not look, no answer that equals another."""
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:
        return process


async def perform(call: Call) -> None:
    """Makes a call; a resolved that does not run is not started. Raises :class:`ResolvedError`."""
    program = shutil.which("busctl")
    if program is None:
        raise ResolvedError("there is no busctl to tell it")
    process = await asyncio.create_subprocess_exec(
        *(program, "--system", "--auto-start=no", "--allow-interactive-authorization=no"),
        *("--quiet", "call", *_OBJECT, call.method, call.signature, *call.arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, said = await process.communicate()
    except TimeoutError:
        raise ResolvedError(f"it did not answer within {_TIMEOUT:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise ResolvedError(lines[-1] if lines else f"busctl ended with {process.returncode}")


class Integration:
    """Keeps resolved told, from :meth:`start` to :meth:`stop`; also one that starts, or starts
    again, while the host runs."""

    def __init__(self, device: str, domain: str, stub: Endpoint, its_socket: Path = SOCKET) -> None:
        self._device = device
        self._index = 0
        self._domain = domain
        self._stub = stub
        self._socket = its_socket
        self._to: tuple[int, int] | None = None  # which run of resolved was told
        self._told = asyncio.Event()  # for the first time, or it is known that it cannot be
        self._keeper: asyncio.Task[None] | None = None
        self._failures = 0  # in a row
        self._log = structlog.get_logger("autotunnel")
        self.integrated = False
        self.reason: str | None = None

    async def start(self) -> None:
        """Tells resolved, if it runs; at most a few seconds are waited for that."""
        self._keeper = asyncio.create_task(self._keep())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST):
                await self._told.wait()

    async def stop(self) -> None:
        """Takes it back."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self.integrated:
            self.integrated = False
            with contextlib.suppress(ResolvedError):
                await perform(revert_call(self._index))

    async def _keep(self) -> None:
        while True:
            if not is_running(self._stub, self._socket):
                self.integrated, self.reason, self._failures = False, None, 0
            elif not self.integrated or self._to != _stamp(self._socket):
                self._to = _stamp(self._socket)
                await self._tell()
            self._told.set()
            await asyncio.sleep(_AGAIN * 2 ** min(self._failures, _MOST_DOUBLINGS))

    async def _tell(self) -> None:
        try:
            self._index = socket.if_nametoindex(self._device)
            for call in calls(self._index, self._domain, self._stub):
                await perform(call)
        except (ResolvedError, OSError) as problem:
            if str(problem) != self.reason:
                self._log.warning(
                    f"systemd-resolved could not be told of {self._domain}: {problem}; "
                    "`autotunnel doctor` says what to do"
                )
            self.integrated, self.reason = False, str(problem)
            self._failures += 1
        else:
            self.integrated, self.reason, self._failures = True, None, 0
