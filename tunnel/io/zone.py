"""The host's line to its rendezvous: which server it is, the transport, and the node's client.

Without ``[rendezvous] server`` the zone's bootstrap SRV records say where it is (B37, B43;
:mod:`discovery.finding` has their order). They are asked of the system's resolver, never of our own
stub.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

from discovery import finding
from discovery.client import ClientSettings, ZoneClient
from discovery.io_transport import ZoneTransport
from discovery.types import Endpoint, TsigKey
from keys.account import Account
from keys.store import random_bytes
from tunnel.config import HostConfig
from tunnel.io.nearby import Neighbours
from tunnel.io.translation import Translation
from tunnel.node import Node
from tunnel.status import endpoint_text

_FIND_TIMEOUT = 5.0  # seconds
_FIND_AGAIN = 30.0  # seconds


class Tell(Protocol):
    """How the node is told something: a method of it, and its arguments without the time."""

    def __call__(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Does what the node then says."""


class ZoneLink:
    """All of one host's I/O with its rendezvous; without an account it does nothing."""

    def __init__(
        self,
        config: HostConfig,
        account: Account | None,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._config = config
        self._account = account
        self._transport: ZoneTransport | None = None
        self._finding: asyncio.Task[None] | None = None
        self.server: Endpoint | None = config.rendezvous.endpoint if account else None
        self._servers: list[Endpoint] = []  # where the zone's SRV records named more than one
        self.translation = Translation()  # of where we connect to, on a network without IPv4
        self._neighbours: Neighbours | None = None
        self._quieting: asyncio.Task[None] | None = None
        self.client = client_of(config, account, random)

    @property
    def up(self) -> bool:
        """Whether the rendezvous can be asked now."""
        return self._transport is not None and self._transport.up

    @property
    def imposter(self) -> bool:
        """Whether somebody else answered in its place the last time."""
        return self._transport is not None and self._transport.imposter

    def _reached_at(self, server: Endpoint) -> Endpoint:
        return (self.translation.address(server[0]), server[1])

    @property
    def server_address(self) -> str | None:
        """The rendezvous' address, where we know it as one."""
        try:
            return None if self.server is None else str(ip_address(self.server[0]))
        except ValueError:
            return None

    @property
    def server_text(self) -> str | None:
        """The rendezvous as ``status`` shows it."""
        return endpoint_text(self.server)

    @property
    def transport_name(self) -> str | None:
        """How we talk with it: "tls", "tcp" or "udp"."""
        return None if self._account is None else self._config.rendezvous.transport

    @property
    def refusal(self) -> str | None:
        """Why the rendezvous refuses our signature already while its key is being proven."""
        return None if self._transport is None else self._transport.refusal

    def send(self, wire: bytes) -> None:
        """Sends a message of the client machine."""
        if self._transport is not None:
            self._transport.send(wire)

    def hurry(self) -> None:
        """Somebody waits for what only the rendezvous can say."""
        if self._transport is not None:
            self._transport.hurry()

    def drop(self, pause: float) -> None:
        """Leaves the connection; the next one is made after ``pause`` seconds."""
        if self._transport is not None:
            self._transport.reset(pause)

    async def start(self, node: Node, tell: Tell) -> None:
        """Begins to connect; what comes goes to ``node`` by ``tell``."""
        if self._account is None:
            return
        multicast = self._config.host.multicast
        if multicast:
            self._neighbours = Neighbours(
                self._account,
                node.identity,
                self._config.host.listen,
                lambda records: tell(node.nearby, records),
                always=multicast is True,
            )
        if self._neighbours is not None and multicast is True:
            self._neighbours.lost()
        if self.server is not None:
            self._connect(self._account, node, tell)
        else:
            self._finding = asyncio.create_task(self._find(self._account, node, tell))

    def _connect(self, account: Account, node: Node, tell: Tell) -> None:
        assert self.server is not None
        settings = self._config.rendezvous
        self._transport = ZoneTransport(
            server=self._reached_at(self.server),
            transport=settings.transport,
            domain=account.domain,
            key=_key(account),
            pin=settings.pin_octets,
            on_message=lambda wire: tell(node.zone_message, wire),
            on_up=lambda: self._up(node, tell),
            on_down=lambda reason: self._down(reason, node, tell),
            holds=lambda: self.client is not None and self.client.holds,
        )
        self._transport.start()

    def _up(self, node: Node, tell: Tell) -> None:
        if self._neighbours is not None:
            self._quieting = asyncio.create_task(self._neighbours.back())
        tell(node.zone_up)

    def _down(self, reason: str, node: Node, tell: Tell) -> None:
        """The next attempt is made with the next server that the zone names (RFC 2136 §4)."""
        if len(self._servers) > 1 and self._transport is not None:
            self._servers = [*self._servers[1:], self._servers[0]]
            self.server = self._servers[0]
            self._transport.server = self._reached_at(self.server)
        self._lost(reason, node, tell)

    def _lost(self, reason: str, node: Node, tell: Tell) -> None:
        if self._neighbours is not None:
            self._neighbours.lost()
        tell(node.zone_down, reason)

    async def _find(self, account: Account, node: Node, tell: Tell) -> None:
        while self.server is None:
            self._servers = await find_rendezvous(account.domain, self._config.rendezvous.transport)
            self.server = self._servers[0] if self._servers else None
            if self.server is None:
                reason = f"no SRV record below {account.domain} names it; set rendezvous.server"
                self._lost(reason, node, tell)
                await asyncio.sleep(_FIND_AGAIN)
        self._connect(account, node, tell)

    def network_changed(self) -> None:
        """Our addresses changed: the connection is opened anew at once."""
        if self._transport is not None and self.server is not None:
            self._transport.server = self._reached_at(self.server)
            self._transport.reset()

    async def close(self) -> None:
        """Ends all of it."""
        if self._finding is not None:
            self._finding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._finding
        if self._transport is not None:
            await self._transport.stop()
        if self._quieting is not None:
            await self._quieting
        if self._neighbours is not None:
            await self._neighbours.stop()


def client_of(
    config: HostConfig, account: Account | None, random: Callable[[int], bytes]
) -> ZoneClient | None:
    """The zone client of a host; ``None`` for one without an account."""
    if account is None:
        return None
    return ZoneClient(
        domain=account.domain,
        label=config.host.name,
        key=_key(account),
        random=random,
        settings=ClientSettings(
            reliable=config.rendezvous.transport != "udp",
            secure=config.rendezvous.transport == "tls",
        ),
    )


def _key(account: Account) -> TsigKey:
    return TsigKey(account.tsig_name, account.tsig_secret)


async def find_rendezvous(
    domain: str, transport: str, random: Callable[[int], bytes] = random_bytes
) -> list[Endpoint]:
    """The servers that the zone's own SRV records name (B37, B43), in the order to try them: those
    of the first name that has any, then those of the next."""
    import dns.asyncresolver  # brings all of a resolver, for hosts that were not told the server

    found: list[Endpoint] = []
    for service in finding.names(transport):
        try:
            answer = await dns.asyncresolver.resolve(
                f"{service}.{domain}.", dns.rdatatype.SRV, lifetime=_FIND_TIMEOUT
            )
        except (dns.exception.DNSException, OSError):
            continue
        candidates = [
            finding.Candidate(
                one.priority,
                one.weight,
                one.target.to_text(omit_final_dot=True).strip("."),
                one.port,
            )
            for one in answer
        ]
        found += finding.in_order(candidates, random)
    return list(dict.fromkeys(found))
