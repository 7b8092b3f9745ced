"""What happens on an internet of two homes, said once: the lab runs it with real routers, and the
simulator of ``tests/sim`` in memory.

A :class:`Scenario` is data: what each host stands behind, what the links do to packets, and what
happens when. It is also the file that ``autotunnel lab FILE`` reads (TOML, the same words).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, get_args

import msgspec

from tunnel.config.base import Section, WrongValueError
from tunnel.config.reading import convert, read

Kind: TypeAlias = Literal[
    "public", "mapped", "full-cone", "restricted", "symmetric", "double", "cgnat", "blocked"
]
Who: TypeAlias = Literal["left", "right"]
Deed: TypeAlias = Literal["move", "reboot", "restart", "away", "back"]

KINDS: Final[dict[Kind, str]] = {
    "public": "a public address, no router that translates",
    "mapped": "a router that opens ports when it is asked (PCP, NAT-PMP, UPnP)",
    "full-cone": "a NAT that lets everybody in",
    "restricted": "a NAT that lets in only whom the host sent to (the usual home router)",
    "symmetric": "a NAT that takes another port for every destination",
    "double": "a home router behind another NAT",
    "cgnat": "a router that would open ports, behind its provider's NAT (100.64.0.0/10)",
    "blocked": "a network that lets no UDP out",
}

_OPEN: Final = frozenset[Kind](("public", "mapped", "full-cone"))
_SAME_PORT: Final = frozenset[Kind](("restricted", "double", "cgnat"))

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
Moment = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Network(Section, frozen=True):
    """What one host stands behind. ``timeout``: seconds for which its NAT remembers a flow that
    nobody uses; 0 is the NAT's own choice."""

    kind: Kind = "public"
    timeout: Moment = 0.0

    @property
    def translates(self) -> bool:
        """Whether the host's own address means nothing outside."""
        return self.kind != "public"


class Links(Section, frozen=True):
    """What the way between the internet and each home does to packets, in each direction."""

    delay_ms: Milliseconds = 0.0
    jitter_ms: Milliseconds = 0.0  # added at random; packets overtake each other
    loss: Percent = 0.0
    duplicate: Percent = 0.0
    mtu: Annotated[int, msgspec.Meta(ge=1280, le=1500)] = 1500

    @property
    def plain(self) -> bool:
        """Whether they do nothing but carry."""
        return not (self.delay_ms or self.jitter_ms or self.loss or self.duplicate)


class Event(Section, frozen=True):
    """At ``at`` seconds after both hosts met or gave up: ``move`` to another network, which is
    of ``kind``; the router of the host comes back with another address (``reboot``); its program
    is killed and started (``restart``); the rendezvous is ``away``, or ``back``."""

    do: Deed
    at: Moment = 0.0
    who: Who | None = None
    kind: Kind | None = None
    timeout: Moment = 0.0

    def __post_init__(self) -> None:
        needs_who = self.do in ("move", "reboot", "restart")
        if needs_who != (self.who is not None):
            fix = 'add who = "left" or "right"' if needs_who else "remove it"
            raise WrongValueError("who", f"{self.do!r} does not go with that", fix)
        if (self.do == "move") != (self.kind is not None):
            kinds = ", ".join(get_args(Kind))
            fix = f"add kind, one of {kinds}" if self.do == "move" else "remove it"
            raise WrongValueError("kind", f"{self.do!r} does not go with that", fix)


class Scenario(Section, frozen=True):
    """Two hosts, what they stand behind, and what happens to them."""

    about: str = ""
    left: Network = Network()
    right: Network = Network()
    links: Links = Links()
    event: tuple[Event, ...] = ()

    def network(self, who: Who) -> Network:
        """Where the host begins."""
        return self.left if who == "left" else self.right

    def at_last(self, who: Who) -> Network:
        """Where the host stands after all events."""
        moves = [one for one in self.in_order() if one.do == "move" and one.who == who]
        if not moves or moves[-1].kind is None:
            return self.network(who)
        return Network(moves[-1].kind, moves[-1].timeout)

    def in_order(self) -> tuple[Event, ...]:
        """Its events as they happen."""
        return tuple(sorted(self.event, key=lambda one: one.at))

    def moments(self) -> list[tuple[float, tuple[Event, ...]]]:
        """The same, those of one moment together."""
        ordered = self.in_order()
        times = sorted({one.at for one in ordered})
        return [(at, tuple(one for one in ordered if one.at == at)) for at in times]

    @property
    def has_path(self) -> bool:
        """Whether the two have a direct path when all has happened (:func:`path_exists`), and
        somebody to find each other by."""
        zone = [one.do for one in self.in_order() if one.do in ("away", "back")]
        return path_exists(self.at_last("left").kind, self.at_last("right").kind) and (
            not zone or zone[-1] == "back"
        )


def path_exists(one: Kind, other: Kind) -> bool:
    """Whether two hosts in networks of these kinds can have a direct path.

    Nobody can be reached whose network lets no UDP through. A host is *open* if anybody may send
    to the endpoint that it publishes; whoever can send reaches it. Of two that are not open, each
    must send first to where the other will come from; that is known beforehand only if both NATs
    keep one port for all destinations (RFC 4787's endpoint-independent mapping).
    """
    kinds = {one, other}
    if "blocked" in kinds:
        return False
    return bool(kinds & _OPEN) or kinds <= _SAME_PORT


SCENARIOS: Final[dict[str, Scenario]] = {
    "public": Scenario("both have public addresses"),
    "mapped": Scenario("one router opens a port by PCP", left=Network("mapped")),
    "punched": Scenario(
        "both NATs let in only whom was sent to: both send at once",
        left=Network("restricted"),
        right=Network("restricted"),
    ),
    "full-cone": Scenario(
        "a NAT that lets everybody in", left=Network("full-cone"), right=Network("symmetric")
    ),
    "symmetric": Scenario(
        "one NAT takes another port for every destination", left=Network("symmetric")
    ),
    "hopeless": Scenario(
        "two NATs of which one is symmetric: there is no direct path",
        left=Network("symmetric"),
        right=Network("restricted"),
    ),
    "double": Scenario(
        "a home router behind another NAT", left=Network("double"), right=Network("restricted")
    ),
    "cgnat": Scenario(
        "a router that opens ports, but its own address is shared by its provider",
        left=Network("cgnat"),
    ),
    "blocked": Scenario("a network that lets no UDP out", left=Network("blocked")),
    "narrow": Scenario("links of 1280 octets", left=Network("restricted"), links=Links(mtu=1280)),
    "bad-links": Scenario(
        "one packet of twenty is lost, and 60 ms more to wait for the others",
        left=Network("restricted"),
        right=Network("mapped"),
        links=Links(delay_ms=30, jitter_ms=10, loss=5, duplicate=1),
    ),
    "two-wans": Scenario(
        "a host changes from one network to another",
        left=Network("restricted"),
        event=(Event("move", 2, "left", "mapped"),),
    ),
    "both-move": Scenario(
        "both hosts change their networks at the same moment",
        left=Network("mapped"),
        right=Network("public"),
        event=(Event("move", 2, "left", "restricted"), Event("move", 2, "right", "mapped")),
    ),
    "reboot": Scenario(
        "a router comes back with another address",
        left=Network("mapped"),
        event=(Event("reboot", 2, "left"),),
    ),
    "restart": Scenario(
        "a host's program is killed and started again",
        left=Network("mapped"),
        right=Network("restricted"),
        event=(Event("restart", 2, "right"),),
    ),
    "without-rendezvous": Scenario(
        "a host moves while the rendezvous is away",
        left=Network("restricted"),
        event=(Event("away", 1), Event("move", 3, "left", "public"), Event("back", 20)),
    ),
}
"""Those that ``autotunnel lab --list`` names."""


def load(path: Path) -> Scenario:
    """A scenario from a TOML file. Raises :class:`tunnel.config.base.ConfigError`."""
    return convert(path, read(path), Scenario)
