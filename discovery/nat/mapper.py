"""All ways to ask all gateways at once, and the best answer kept (RFC 6281 §4, B21–B33).

PCP is asked first. A gateway that answers in NAT-PMP's version is asked in it at once; one that is
silent for a moment is asked in it too, since some drop what they do not know. UPnP, which has to
find its gateway by multicast, begins a little later. The first mapping that can be reached from
outside ends the race: what others granted is given back. A mapping inside another NAT is kept only
while there is no better one (B33).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import TypeAlias

from discovery.nat.natpmp import NatPmpClient
from discovery.nat.pcp import PcpClient
from discovery.nat.types import (
    SERVER_PORT,
    Doubted,
    Endpoint,
    Mapped,
    Mapping,
    Method,
    NatCommand,
    NotMapped,
    OtherVersion,
    SendNat,
    UpnpCall,
)
from discovery.nat.upnp import UpnpClient

HEAD_START = 1.0  # seconds that PCP has before NAT-PMP
UPNP_START = 2.0  # seconds that both have before UPnP

_Client: TypeAlias = NatPmpClient | PcpClient | UpnpClient
_ORDER: tuple[Method, ...] = ("pcp", "nat-pmp", "upnp")


@dataclass(frozen=True, slots=True)
class Gateway:
    """A router to ask, and our endpoint on the link to it."""

    address: str
    local: Endpoint


@dataclass(frozen=True, slots=True)
class UpnpSearch:
    """Look for UPnP gateways on this host's links; what is found comes to
    :meth:`Mapper.upnp_found`."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way in changed: the mapping to publish, or ``None`` with the ``reason``."""

    mapping: Mapping | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """The gateway that granted our way in forgot it, and may have another address outside. It is
    asked again soon; :attr:`Mapper.doubted` holds until it has answered."""


MapperCommand: TypeAlias = SendNat | UpnpCall | UpnpSearch | Way | Doubt


class Mapper:
    """One mapping of each family for this host's port, whoever grants it."""

    def __init__(self, methods: Iterable[Method], random: Callable[[int], bytes]) -> None:
        self._methods = tuple(one for one in _ORDER if one in set(methods))
        self._random = random
        self._gateways: tuple[Gateway, ...] = ()
        self._clients: dict[tuple[str, Method], _Client] = {}
        self._starts: dict[tuple[str, Method], float] = {}
        self._search: float | None = None
        self._wishes: dict[bool, Endpoint] = {}  # by "is IPv6": what we had last, B28
        self._ways: dict[bool, Mapping | None] = {}
        self.answers: dict[tuple[str, Method], str] = {}
        """The last word of every gateway, for people."""
        self.doubted = False
        """Whether the mapping of IPv4 may not hold any more, since its gateway restarted."""

    # --- What there is ----------------------------------------------------------------------

    def way(self, *, ipv6: bool = False) -> Mapping | None:
        """The mapping to publish."""
        return self._ways.get(ipv6)

    def next_timer(self) -> float | None:
        """When :meth:`advance` has something to do."""
        due = [client.next_timer() for client in self._clients.values()]
        known = [one for one in (*due, *self._starts.values(), self._search) if one is not None]
        return min(known, default=None)

    # --- What happens -----------------------------------------------------------------------

    def network(self, gateways: Iterable[Gateway], now: float) -> list[MapperCommand]:
        """The host stands in another network, or begins: nothing known before holds there."""
        self._gateways = tuple(gateways)
        self._clients.clear()
        self._starts.clear()
        self._ways.clear()
        self.answers.clear()
        self.doubted = False
        self._search = now + UPNP_START if self._wants_upnp() else None
        if self._methods == ("upnp",):
            self._search = now if self._gateways else None
        for gateway in self._gateways:
            self._line_up(gateway, now)
        return self.advance(now)

    def refresh(self, now: float) -> list[MapperCommand]:
        """Ask for the mappings that we have once more, before their time: what was granted holds
        until the answer says something else. Not by UPnP, whose gateways are slow to ask."""
        out: list[MapperCommand] = []
        for way in filter(None, self._ways.values()):
            client = self._clients.get((way.gateway, way.method))
            if isinstance(client, PcpClient | NatPmpClient):
                out += self._heard((way.gateway, way.method), client.start(now), now)
        return out

    def stop(self, now: float) -> list[MapperCommand]:
        """Give everything back; :meth:`advance` retransmits what is not acknowledged."""
        self._starts.clear()
        self._search = None
        out: list[NatCommand] = []
        for client in self._clients.values():
            out += _end(client, now)
        return [one for one in out if isinstance(one, SendNat | UpnpCall)]

    def advance(self, now: float) -> list[MapperCommand]:
        """Whatever time brings."""
        out: list[MapperCommand] = []
        for key, at in list(self._starts.items()):
            if now >= at:
                del self._starts[key]
                out += self._begin(*key, now)
        if self._search is not None and now >= self._search:
            self._search = None
            out.append(UpnpSearch())
        for key, client in list(self._clients.items()):
            out += self._heard(key, client.advance(now), now)
        return out

    def receive(self, data: bytes, source: Endpoint, now: float) -> list[MapperCommand]:
        """A datagram that came to the asking socket or to the announcements' group."""
        out: list[MapperCommand] = []
        if source[1] != SERVER_PORT:
            return out
        for method in ("pcp", "nat-pmp"):
            client = self._clients.get((source[0], method))
            if isinstance(client, PcpClient | NatPmpClient):
                said = client.receive(data, source, now)
                out += self._heard((source[0], method), said, now)
        return out

    def refused(self, gateway: str, now: float) -> list[MapperCommand]:
        """An ICMP error says that nobody listens there."""
        out: list[MapperCommand] = []
        for method in ("pcp", "nat-pmp"):
            client = self._clients.get((gateway, method))
            if isinstance(client, PcpClient | NatPmpClient):
                out += self._heard((gateway, method), client.refused(now), now)
        return out

    def upnp_found(self, gateway: str, version: int, local: str, now: float) -> list[MapperCommand]:
        """A WAN connection service answered the search; ``local`` is our address towards it.

        It also says that a known one restarted (BOOTID): then its mapping is made again.
        """
        mine = next((one.local for one in self._gateways if one.address == gateway), None)
        key: tuple[str, Method] = (gateway, "upnp")
        if mine is None or mine[0] != local or not self._wants_upnp():
            return []  # only our own routers open our ports
        client = self._clients.get(key)
        if client is None:
            wish = self._wishes.get(False)
            client = UpnpClient(gateway, mine, self._random, version=version, wish=wish and wish[1])
            self._clients[key] = client
        return self._heard(key, client.start(now), now)

    def upnp_answered(
        self, ticket: int, values: Table[str, object], now: float
    ) -> list[MapperCommand]:
        """An action was done."""
        return [
            command
            for key, client in self._upnp()
            for command in self._heard(key, client.answered(ticket, values, now), now)
        ]

    def upnp_failed(
        self, ticket: int, code: int | None, text: str, now: float
    ) -> list[MapperCommand]:
        """An action was refused with an error code, or not answered (``None``)."""
        return [
            command
            for key, client in self._upnp()
            for command in self._heard(key, client.failed(ticket, code, text, now), now)
        ]

    # --- Inside -----------------------------------------------------------------------------

    def _wants_upnp(self) -> bool:
        return "upnp" in self._methods and any("." in one.address for one in self._gateways)

    def _upnp(self) -> list[tuple[tuple[str, Method], UpnpClient]]:
        return [(key, one) for key, one in self._clients.items() if isinstance(one, UpnpClient)]

    def _line_up(self, gateway: Gateway, now: float) -> None:
        """When which protocol begins; NAT-PMP knows IPv4 only."""
        if "pcp" in self._methods:
            self._starts[gateway.address, "pcp"] = now
        if "nat-pmp" in self._methods and "." in gateway.address:
            head = HEAD_START if "pcp" in self._methods else 0.0
            self._starts[gateway.address, "nat-pmp"] = now + head

    def _begin(self, address: str, method: Method, now: float) -> list[MapperCommand]:
        gateway = next(one for one in self._gateways if one.address == address)
        wish = self._wishes.get(":" in address)
        client: PcpClient | NatPmpClient
        if method == "pcp":
            client = PcpClient(address, gateway.local, self._random, wish=wish)
        else:
            port = None if wish is None else wish[1]
            client = NatPmpClient(address, gateway.local, self._random, wish=port)
        self._clients[address, method] = client
        return self._heard((address, method), client.start(now), now)

    def _heard(
        self, key: tuple[str, Method], commands: list[NatCommand], now: float
    ) -> list[MapperCommand]:
        """A machine's words: its messages go out, its news are weighed."""
        out: list[MapperCommand] = []
        for command in commands:
            if isinstance(command, SendNat | UpnpCall):
                out.append(command)
            elif isinstance(command, OtherVersion):
                self.answers[key] = "it speaks NAT-PMP"
                if "nat-pmp" in self._methods and (key[0], "nat-pmp") not in self._clients:
                    self._starts.pop((key[0], "nat-pmp"), None)
                    out += self._begin(key[0], "nat-pmp", now)
            elif isinstance(command, Doubted):
                out += self._doubt(key)
            elif isinstance(command, Mapped):
                self.answers[key] = "mapped"
                out += self._weigh(key, now)
            else:
                self.answers[key] = command.reason
                out += self._lost(key, command, now)
        return out

    def _weigh(self, key: tuple[str, Method], now: float) -> list[MapperCommand]:
        """A mapping came: is it the one to publish, and who need not be asked any more?"""
        ipv6 = ":" in key[0]
        known = [
            (one.mapping, at)
            for at, one in self._clients.items()
            if one.mapping is not None and (":" in at[0]) == ipv6
        ]
        best, winner = min(known, key=lambda one: (one[0].double_nat, _ORDER.index(one[1][1])))
        out: list[MapperCommand] = []
        if not best.double_nat:
            out += self._dismiss(winner, ipv6=ipv6, now=now)
        doubted = self.doubted and winner == key and not ipv6
        if best != self._ways.get(ipv6) or doubted:
            self.doubted = self.doubted and not doubted
            self._ways[ipv6], self._wishes[ipv6] = best, best.external
            out.append(Way(best))
        return out

    def _doubt(self, key: tuple[str, Method]) -> list[MapperCommand]:
        """What IPv6 has is a firewall's hole before an address of our own: that stays the same."""
        held = self._ways.get(False)
        if self.doubted or held is None or (held.gateway, held.method) != key:
            return []
        self.doubted = True
        return [Doubt()]

    def _dismiss(
        self, winner: tuple[str, Method], *, ipv6: bool, now: float
    ) -> list[MapperCommand]:
        """The race is over: the others give back what they hold, and ask no more."""
        out: list[MapperCommand] = []
        for key in [one for one in self._starts if (":" in one[0]) == ipv6]:
            del self._starts[key]
        for key, client in list(self._clients.items()):
            if key == winner or (":" in key[0]) != ipv6:
                continue
            if client.mapping is not None:
                out += [one for one in _end(client, now) if isinstance(one, SendNat | UpnpCall)]
            del self._clients[key]
        if not ipv6:
            self._search = None
        return out

    def _lost(self, key: tuple[str, Method], word: NotMapped, now: float) -> list[MapperCommand]:
        """A machine has no mapping. If it had ours, the race begins again with all."""
        ipv6 = ":" in key[0]
        held = self._ways.get(ipv6)
        if held is None or (held.gateway, held.method) != key:
            return []
        self._ways[ipv6] = None
        self.doubted = self.doubted and ipv6
        for gateway in self._gateways:
            if (":" in gateway.address) == ipv6:
                self._line_up(gateway, now)
        for other in list(self._starts):
            if other in self._clients:
                del self._starts[other]
        if self._wants_upnp() and not ipv6 and key[1] != "upnp":
            self._search = now + UPNP_START
        return [Way(None, f"{key[0]} ({key[1]}): {word.reason}")]


def _end(client: _Client, now: float) -> list[NatCommand]:
    return client.stop() if isinstance(client, UpnpClient) else client.stop(now)
