"""One end of a handshake measurement: an IKE endpoint of ours with nothing around it.

``python -m bench.handshake_end RECIPE respond ADDRESS`` answers until it is ended;
``… RECIPE initiate ADDRESS COUNT`` makes and closes so many tunnels, one after the other, and
prints how many seconds and how many of processor time that took.
"""

from __future__ import annotations

import random
import secrets
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Address

from keys import ca
from keys.ca import Authority
from keys.ike.certificates import Certified, Credential, Trust
from keys.ike.endpoint import IkeEndpoint, IkeSettings
from keys.ike.types import (
    AskPeer,
    Command,
    Endpoint,
    IkeFailed,
    InstallOutbound,
    PeerDown,
    PeerPolicy,
    SendIke,
)

DOMAIN = "bench.example"
NAMES = (f"left.{DOMAIN}", f"right.{DOMAIN}")
IDS = (IPv6Address("fd00:c::1"), IPv6Address("fd00:c::2"))
SUITE = "aes128gcm16"
PSK = bytes(32)  # never leaves a measurement
PORT = 4500
MARKER = bytes(4)  # RFC 3948 §2.2
CERTIFICATES = "x25519 and ML-KEM-768, certificates"  # as our hosts have it by default
_classic = partial(IkeSettings, encryption=(SUITE,), prf=("prfsha256",), groups=("x25519",))
RECIPES = {
    "x25519": _classic(additional=()),
    "x25519 and ML-KEM-768": _classic(),
    CERTIFICATES: _classic(),
}


class Papers:
    """A host's certificate. Each process makes the same CA for itself: nothing is secret here."""

    def __init__(self, name: str, unix: int) -> None:
        authority = Authority.new(DOMAIN, unix - 3600, random.Random(1).randbytes)
        key = ca.new_key(secrets.token_bytes)
        wanted = ca.read_request(ca.request(key, name))
        own = Credential(key, (authority.issue(wanted, unix, secrets.token_bytes),))
        self._certified = Certified(own, Trust((authority.certificate,)))

    def for_peer(self, name: str) -> Certified | None:
        """The same for all of this measurement."""
        return self._certified if name in NAMES else None

    def authorities(self) -> bytes:
        """For CERTREQ."""
        return self._certified.trust.authorities()


@dataclass
class End:
    """``left`` (0) or ``right`` (1), and what it was told last."""

    number: int
    recipe: str
    outbox: list[tuple[bytes, Endpoint]] = field(default_factory=list)
    up: bool = False

    def __post_init__(self) -> None:
        self.name, unix = NAMES[self.number], int(time.time())
        self.ike = IkeEndpoint(
            local_name=self.name,
            secret_for=lambda _: PSK,
            random=secrets.token_bytes,
            settings=RECIPES[self.recipe],
            certification=Papers(self.name, unix) if self.recipe == CERTIFICATES else None,
        )
        self.ike.wall_clock(unix)
        self.peer = NAMES[1 - self.number]
        self.policy = PeerPolicy(
            self.peer, IDS[self.number], IDS[1 - self.number], suites=(SUITE,), esn=(False,)
        )

    def connect(self, remote: Endpoint) -> None:
        """Begins a tunnel."""
        self.take(self.ike.connect(self.peer, self.policy, remote, time.monotonic()))

    def close(self) -> None:
        """Ends it."""
        self.take(self.ike.close(self.peer, time.monotonic()))

    def receive(self, data: bytes, remote: Endpoint) -> None:
        """Takes a message; what it leads to stands in ``outbox`` and ``up``."""
        self.take(self.ike.receive(data, remote, time.monotonic()))

    def take(self, commands: list[Command]) -> None:
        """Carries out what the endpoint wants."""
        for command in commands:
            match command:
                case SendIke(data, remote):
                    self.outbox.append((data, remote))
                case AskPeer(ticket):
                    self.take(self.ike.authorise(ticket, self.policy, time.monotonic()))
                case InstallOutbound():
                    self.up = True
                case PeerDown():
                    self.up = False
                case IkeFailed(_, reason):
                    raise RuntimeError(reason)
                case _:
                    pass


class Wire:
    """An end on a UDP socket."""

    def __init__(self, end: End, address: str) -> None:
        self.end = end
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, PORT))
        self._socket.setblocking(False)

    def turn(self) -> None:
        """Sends what is to be sent, then waits for one message, or for a timer."""
        for data, remote in self.end.outbox:
            self._socket.sendto(MARKER + data, remote)
        self.end.outbox.clear()
        at = self.end.ike.next_timer()
        wait = 1.0 if at is None else min(max(at - time.monotonic(), 0.0), 1.0)
        if select.select([self._socket], [], [], wait)[0]:
            data, source = self._socket.recvfrom(65535)
            self.end.receive(data.removeprefix(MARKER), source)
        else:
            self.end.take(self.end.ike.advance(time.monotonic()))


def main(recipe: str, role: str, address: str, *rest: str) -> None:
    """See the module."""
    if role == "respond":
        wire = Wire(End(1, recipe), address)
        print("ready", flush=True)
        while True:
            wire.turn()
    remote, count = (rest[0], PORT), int(rest[1])
    wire = Wire(End(0, recipe), address)
    started, used = time.monotonic(), time.process_time()
    for _ in range(count):
        wire.end.connect(remote)
        while not wire.end.up:
            wire.turn()
        wire.end.close()
        while wire.end.up:
            wire.turn()
    print(time.monotonic() - started, time.process_time() - used, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
