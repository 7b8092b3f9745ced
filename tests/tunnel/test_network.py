"""Where a host says that it can be reached, and what kind of network it finds itself in: the logic
of :mod:`tunnel.io.network` with a router that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from discovery.nat.mapper import Gateway, Way
from discovery.nat.portal import Portal
from discovery.nat.survey import Surveyed
from discovery.nat.types import Mapping
from fastpath.types import Endpoint, Source
from tunnel.config import host_from_tables, parse_toml
from tunnel.early import MOST
from tunnel.io import network as module
from tunnel.io.netlink import WayOut
from tunnel.io.network import Network
from tunnel.io.surveyor import Questions
from tunnel.network_kind import Kind

SERVER, ROUTER = "203.0.113.1", "192.168.1.1"
PRIVATE, PUBLIC, SIX = ("192.168.1.9", 4500), ("198.51.100.7", 4500), ("2001:db8::9", 4500)
SEEN = ("198.51.100.9", 61000)
CONFIG = b"""
[host]
name = "desk.example"
[[peer]]
name = "gateway.example"
id = "fd12:3456:789a::2"
endpoint = "198.51.100.77:4500"
psk_file = "gateway.psk"
"""


class Mapper:
    """What the routers have said."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], str] = {}
        self.doubted = False
        self.ways: dict[bool, Mapping] = {}

    def way(self, *, ipv6: bool = False) -> Mapping | None:
        return self.ways.get(ipv6)


class Router:
    """In the place of :class:`discovery.io_nat.NatLink`."""

    def __init__(
        self,
        _methods: object,
        on_way: Callable[[Way], None],
        *,
        on_answer: Callable[[], None],
        on_doubt: Callable[[], None],
    ) -> None:
        self.on_way, self.on_answer, self.on_doubt = on_way, on_answer, on_doubt
        self.mapper = Mapper()
        self.asked: list[tuple[Gateway, ...]] = []
        self.stopped = False

    async def network(self, gateways: tuple[Gateway, ...]) -> None:
        self.asked.append(gateways)
        self.mapper.answers.clear()
        self.mapper.ways.clear()

    async def stop(self) -> None:
        self.stopped = True

    def opens(self, external: str, *, ipv6: bool = False) -> None:
        """It grants a mapping."""
        inside = SIX if ipv6 else PRIVATE
        mapping = Mapping("pcp", ROUTER, inside, (external, 4500), 7200)
        self.mapper.ways[ipv6] = mapping
        self.mapper.answers[ROUTER, "pcp"] = "mapped"
        self.on_way(Way(mapping))

    def refuses(self, says: str = "it refuses mappings") -> None:
        self.mapper.answers[ROUTER, "pcp"] = says
        self.on_answer()


class Changes:
    """In the place of the kernel's word."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed

    def start(self) -> bool:
        return True

    def stop(self) -> None:
        pass


class Place:
    """A host somewhere, and all that it was told and said."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.local: tuple[Endpoint, ...] = (PRIVATE,)
        self.gateways: tuple[str, ...] = (ROUTER,)
        self.others: tuple[WayOut, ...] = ()
        self.server: str | None = SERVER
        self.zone_up, self.imposter = True, False
        self.surveyed = Surveyed(True, SEEN, "port", False)
        self.portal: Portal | None = None
        self.nat64: IPv6Network | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.said: list[tuple[Any, ...]] = []
        self.asked: list[str] = []
        self.changes = Changes(lambda: None)
        self.router = Router(None, print, on_answer=print, on_doubt=print)
        monkeypatch.setattr(module, "outer_endpoints", lambda *_: self.local)
        monkeypatch.setattr("tunnel.io.netlink.ways_out", self._ways_out)
        monkeypatch.setattr(module, "source_towards", lambda *_: PRIVATE[0])
        monkeypatch.setattr(module, "NatLink", self._take_router)
        monkeypatch.setattr(module, "Changes", self._take_changes)
        monkeypatch.setattr(module, "PATIENCE", 0.3)
        monkeypatch.setattr("tunnel.io.surveyor.FIRST", 0.0)
        monkeypatch.setattr("tunnel.io.surveyor.AGAIN", 0.05)
        path = tmp_path / "config.toml"
        self.network = Network(
            host_from_tables(path, parse_toml(path, CONFIG)),
            IPv6Address("fd00::1"),
            lambda: self.server,
            moved=lambda: self.said.append(("moved",)),
            publish=lambda endpoints: self.said.append(("publish", *endpoints)),
            look_outside=lambda servers: self.said.append(("look", *servers)),
            stand=lambda endpoints: self.said.append(("stand", *endpoints)),
            zone_up=lambda: self.zone_up,
            imposter=lambda: self.imposter,
            note=lambda what, why, fields: self.said.append(("note", str(what), why, fields)),
            translate=lambda prefix: self.said.append(("translate", prefix)),
            others=self._others,
            questions=Questions(self._survey, self._portal, self._nat64),
        )

    def _others(self, others: tuple[Source, ...], servers: tuple[Endpoint, ...]) -> None:
        self.said += [("others", *others), ("there", *servers)]

    def _ways_out(self) -> tuple[WayOut, ...]:
        """Those of the network in use, preferred, and the others."""
        sources = {":" in host: host for host, _ in self.local}
        routes = [
            WayOut(6 if ":" in one else 4, 1, one, sources.get(":" in one)) for one in self.gateways
        ]
        return (*routes, *self.others)

    def _take_router(self, *arguments: Any, **named: Any) -> Router:
        self.router = Router(*arguments, **named)
        return self.router

    def _take_changes(self, changed: Callable[[], None]) -> Changes:
        self.changes = Changes(changed)
        return self.changes

    async def _survey(self, server: str, ports: tuple[int, int], local: str) -> Surveyed:
        self.asked.append(f"survey {server} {ports[0]} {ports[1]} {local}")
        return self.surveyed

    async def _portal(self, server: str) -> Portal | None:
        self.asked.append(f"portal {server}")
        return self.portal

    async def _nat64(self) -> IPv6Network | None:
        self.asked.append("nat64")
        return self.nat64

    def begin(self) -> None:
        """The host comes up."""
        self.tasks.append(asyncio.create_task(self.network.run()))

    def of(self, what: str) -> list[list[Any]]:
        """All that was said of one sort."""
        return [rest for first, *rest in self.said if first == what]

    async def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(6000):  # of 10 ms
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(self.said)

    async def is_kind(self, kind: Kind) -> dict[str, Any]:
        """Wait until the status says so."""
        await self.until(lambda: self.network.status()["kind"] == str(kind))
        return self.network.status()


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """Begun by its :meth:`Place.begin`, when the test has said what there is."""
    made = Place(tmp_path, monkeypatch)
    yield made
    for task in made.tasks:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await made.network.stop()
    assert made.router.stopped


# --- What is published ----------------------------------------------------------------------------


async def test_b24_what_the_router_opens_is_published(place: Place) -> None:
    place.begin()
    await place.until(lambda: bool(place.router.asked))
    assert place.router.asked == [(Gateway(ROUTER, PRIVATE),)]
    place.router.opens("198.51.100.1")
    await place.until(lambda: bool(place.of("publish")))
    assert place.of("publish") == [[("198.51.100.1", 4500)]]
    noted = [rest for rest in place.of("note") if rest[0] == "mapping"]
    assert noted == [
        [
            "mapping",
            "it opens 198.51.100.1:4500 for 7200 s",
            {"gateway": ROUTER, "method": "pcp"},
        ]
    ]
    status = await place.is_kind(Kind.MAPPED)
    assert (status["method"], status["double_nat"]) == ("pcp", False)


async def test_b25_without_a_router_that_answers_our_own_address_is_published(place: Place) -> None:
    place.local, place.gateways = (PUBLIC,), ()
    place.begin()
    await place.until(lambda: bool(place.of("publish")))
    assert place.of("publish") == [[PUBLIC]]
    assert not place.of("look"), "a public host needs nobody to tell where it is"


async def test_b33_what_a_router_behind_another_opens_is_not_published(place: Place) -> None:
    place.begin()
    await place.until(lambda: bool(place.router.asked))
    place.router.opens("100.64.3.4")
    await place.until(lambda: bool(place.of("look")))
    place.network.seen(SEEN, "independent")
    await place.until(lambda: [SEEN] in place.of("publish"))
    assert [("100.64.3.4", 4500)] not in place.of("publish")
    assert (await place.is_kind(Kind.DOUBLE_NAT))["double_nat"] is True


async def test_b34_peers_are_told_of_a_move_before_it_is_published(place: Place) -> None:
    place.begin()
    await place.until(lambda: bool(place.router.asked))
    place.router.opens("198.51.100.1")
    await place.until(lambda: bool(place.of("publish")))
    place.local = (("192.168.7.9", 4500),)
    place.gateways = ("192.168.7.1",)
    count = len(place.said)
    place.changes.changed()
    await place.until(lambda: ("moved",) in place.said[count:])
    place.router.opens("198.51.100.2")
    await place.until(lambda: [("198.51.100.2", 4500)] in place.of("publish"))
    kinds = [one[0] for one in place.said[count:] if one[0] in ("stand", "moved", "publish")]
    assert kinds.index("stand") < kinds.index("moved") < kinds.index("publish")


async def test_a_silent_router_is_not_waited_for(place: Place) -> None:
    place.begin()
    await place.until(lambda: bool(place.of("publish")))
    assert place.of("publish") == [[PRIVATE]]
    place.network.seen(SEEN, "independent")
    assert place.of("publish")[-1] == [SEEN]


# --- What kind of network it is -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "kind"),
    [("independent", Kind.INDEPENDENT), ("dependent", Kind.SYMMETRIC), ("", Kind.UNKNOWN_NAT)],
)
async def test_a_nat_is_called_by_how_it_maps(place: Place, mapping: str, kind: Kind) -> None:
    place.begin()
    await place.until(lambda: bool(place.of("look")))
    place.network.seen(SEEN if mapping else None, mapping)
    status = await place.is_kind(kind)
    assert (status["udp"], status["lets_in"], status["hairpin"]) == (True, "port", False)
    await place.until(
        lambda: any(
            rest[0] == "network" and rest[2]["kind"] == str(kind) for rest in place.of("note")
        )
    )


@pytest.mark.parametrize(("lets_in", "kind"), [("port", "firewalled"), ("address", "public")])
async def test_an_address_of_our_own_may_have_a_firewall(
    place: Place, lets_in: Any, kind: str
) -> None:
    place.local, place.gateways = (PUBLIC,), ()
    place.surveyed = Surveyed(True, PUBLIC, lets_in, None)
    place.begin()
    await place.is_kind(Kind(kind))
    assert place.asked == [f"survey {SERVER} 3478 3479 {PUBLIC[0]}"]


async def test_udp_that_does_not_get_out(place: Place) -> None:
    place.surveyed = Surveyed(udp=False)
    place.begin()
    status = await place.is_kind(Kind.UDP_BLOCKED)
    assert status["udp"] is False
    assert "portal" not in " ".join(place.asked), "the zone is there: nobody asks for a portal"
    place.surveyed = Surveyed(True, SEEN, "address", None)
    await place.until(lambda: place.network.status()["udp"])


async def test_a_captive_portal_and_its_end(place: Place) -> None:
    place.surveyed, place.zone_up = Surveyed(udp=False), False
    place.portal = Portal("http://portal.example/")
    place.begin()
    status = await place.is_kind(Kind.CAPTIVE_PORTAL)
    assert status["portal"] == "http://portal.example/"
    place.surveyed, place.zone_up = Surveyed(True, SEEN, "port", None), True
    place.network.zone_changed()
    await place.until(lambda: place.network.status()["portal"] is None)


async def test_a_zone_that_goes_away_has_the_network_surveyed_again(place: Place) -> None:
    place.begin()
    await place.is_kind(Kind.UNKNOWN_NAT)
    place.surveyed, place.zone_up = Surveyed(udp=False), False
    place.portal = Portal("http://portal.example/")
    place.network.zone_changed()
    await place.is_kind(Kind.CAPTIVE_PORTAL)


async def test_when_all_is_known_nobody_is_asked_any_more(place: Place) -> None:
    place.begin()
    await place.is_kind(Kind.UNKNOWN_NAT)
    await asyncio.sleep(0)
    assert place.network._surveyor.wait(0.0) == float("inf")
    assert place.asked == [f"survey {SERVER} 3478 3479 {PRIVATE[0]}"]


async def test_somebody_who_answers_tls_for_the_rendezvous_is_a_portal_too(place: Place) -> None:
    place.surveyed, place.zone_up, place.imposter = Surveyed(udp=False), False, True
    place.begin()
    await place.is_kind(Kind.CAPTIVE_PORTAL)


async def test_without_ipv4_the_network_is_asked_for_a_nat64(place: Place) -> None:
    place.local, place.gateways = (SIX,), ()
    place.nat64 = IPv6Network("64:ff9b::/96")
    place.begin()
    await place.until(lambda: bool(place.of("translate")))
    status = await place.is_kind(Kind.IPV6_ONLY)
    assert status["nat64"] == "64:ff9b::/96"
    assert place.of("translate") == [[IPv6Network("64:ff9b::/96")]]
    place.local = (SIX, PUBLIC)
    place.changes.changed()
    await place.until(lambda: place.of("translate")[-1] == [None])


async def test_offline(place: Place) -> None:
    place.local, place.gateways = (), ()
    place.changes.changed()
    place.begin()
    await place.is_kind(Kind.OFFLINE)
    assert not place.asked


async def test_another_network_is_told_of_and_a_move_to_it_first(place: Place) -> None:
    """The peers are told that we moved, then what is left to leave by (I20)."""
    place.others = (WayOut(4, 3, "192.168.7.1", "192.168.7.9"),)
    place.begin()
    await place.until(lambda: place.of("others") == [[("192.168.7.9", 3)]])
    assert [one.address for one in place.router.asked[-1]] == [ROUTER], "the one before us"
    place.said.clear()
    place.local, place.gateways = (("192.168.7.9", 4500),), ("192.168.7.1",)
    place.others = (WayOut(4, 4, ROUTER, PRIVATE[0]),)
    place.changes.changed()
    await place.until(lambda: place.of("others") == [[(PRIVATE[0], 4)]])
    said = [what for what, *_ in place.said]
    assert said.index("stand") < said.index("moved") < said.index("others")


async def test_from_other_networks_with_a_nat_the_rendezvous_can_be_asked(place: Place) -> None:
    """As soon as it is known, and where it has an IPv4 address (I20, decision 0067)."""
    both = [(SERVER, 3478), (SERVER, 3479)]
    place.server = None
    place.others = (WayOut(4, 3, None, "203.0.113.77"), WayOut(6, 3, None, "2001:db8:7::9"))
    place.begin()
    await place.until(lambda: place.of("there") == [[]])
    place.others = (WayOut(4, 3, None, "192.168.7.9"),)
    place.changes.changed()
    await place.until(lambda: len(place.of("there")) == 2)
    for server, expected in ((SERVER, both), ("2001:db8::1", []), (SERVER, both)):
        before = len(place.of("there"))
        place.server = server
        place.network.look()
        await place.until(lambda before=before: len(place.of("there")) > before)
        assert place.of("there")[-1] == expected
    assert place.of("others")[-1] == [("192.168.7.9", 3)]
    place.others = ()
    place.changes.changed()
    await place.until(lambda: place.of("others")[-1] == [])
    assert place.of("there")[-1] == []


async def test_of_other_networks_four_are_told_and_none_that_no_peer_could_answer(
    place: Place,
) -> None:
    useless = ("fe80::7", "127.0.0.9", "fd00::1", None, PRIVATE[0])
    good = [f"192.168.{number}.9" for number in range(20, 30)]
    place.others = tuple(
        WayOut(4, index, None, source) for index, source in enumerate([*useless, *good], 2)
    )
    place.begin()
    await place.until(lambda: bool(place.of("others")))
    assert [host for host, _ in place.of("others")[0]] == good[:MOST]
    place.others = ()
    place.changes.changed()
    await place.until(lambda: place.of("others")[-1] == [])


async def test_without_rtnetlink_there_is_no_other_network(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> tuple[WayOut, ...]:
        raise AttributeError("module 'socket' has no attribute 'AF_NETLINK'")

    monkeypatch.setattr("tunnel.io.netlink.ways_out", missing)
    place.begin()
    await place.until(lambda: bool(place.of("stand")))
    assert place.of("others") == []
