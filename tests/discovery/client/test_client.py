"""The zone client against the zone server, in memory, on a virtual clock."""

from __future__ import annotations

import random as pseudo
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Any

import dns.name
import pytest

from discovery import records, tsig
from discovery.client import ClientSettings, ZoneClient
from discovery.held import ZoneAccount
from discovery.store import MemoryStore
from discovery.types import (
    ClientCommand,
    HostFound,
    HostNotFound,
    HostRecords,
    HostsListed,
    Published,
    SendZone,
    TsigKey,
    Withdrawn,
    ZoneFine,
    ZoneProblem,
)
from discovery.zone import ZoneServer

UNIX = 1700000000
DOMAIN = "alice.members.example"
SECRET = bytes(range(32))
KEY = TsigKey(DOMAIN + ".", SECRET)
DESK = HostRecords(
    "desk",
    IPv6Address("fd01:203:405:607:22:69ff:fe8e:342a"),
    "AutoTunnel-00-22-69-FF-FE-8E-34-2A",
    (("203.0.113.7", 7809),),
    ("model=desk",),
)
Events = list[ClientCommand]


def server(store: MemoryStore | None = None, secret: bytes = SECRET) -> ZoneServer:
    account = ZoneAccount(DOMAIN, secret, bytes(32), lambda identity, expires: bytes(32))
    return ZoneServer([account], store or MemoryStore(), unix=UNIX)


@dataclass
class World:
    """One client and one server; ``lose`` says which of the client's messages are lost."""

    zone: ZoneServer = field(default_factory=server)
    label: str = "desk"
    key: TsigKey = KEY
    settings: ClientSettings = field(default_factory=ClientSettings)
    ahead: int = 0
    transport: str = "tls"
    now: float = 1000.0
    lose: Callable[[bytes], bool] = lambda wire: False
    tamper: Callable[[bytes], bytes] = lambda wire: wire
    sent: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = ZoneClient(
            domain=DOMAIN,
            label=self.label,
            key=self.key,
            random=pseudo.Random(self.label).randbytes,
            settings=self.settings,
        )

    @property
    def unix(self) -> int:
        """The client's clock."""
        return UNIX + int(self.now - 1000) + self.ahead

    def up(self) -> Events:
        return self.run(self.client.transport_up(self.now, self.unix))

    def run(self, commands: Events) -> Events:
        """Carry out all sending; return everything else."""
        told: Events = []
        queue = list(commands)
        while queue:
            command = queue.pop(0)
            if not isinstance(command, SendZone):
                told.append(command)
                continue
            self.sent.append(command.wire)
            if self.lose(command.wire):
                continue
            source = ("192.0.2.1", 5000)
            for answer in self.zone.handle(
                command.wire, source, self.transport, self.unix - self.ahead
            ):
                queue += self.client.receive(self.tamper(answer), self.now, self.unix)
        return told

    def publish(self, wanted: HostRecords = DESK) -> Events:
        return self.run(self.client.publish(wanted, self.now, self.unix))

    def lookup(self, label: str) -> Events:
        return self.run(self.client.lookup(label, self.now, self.unix))

    def withdraw(self) -> Events:
        return self.run(self.client.withdraw(self.now, self.unix))

    def advance(self, seconds: float) -> Events:
        """Let time pass, timer by timer."""
        told: Events = []
        end = self.now + seconds
        for _ in range(10000):
            timer = self.client.next_timer()
            if timer is None or timer > end:
                break
            self.now = max(self.now, timer)
            told += self.run(self.client.advance(self.now, self.unix))
        else:
            raise AssertionError("the timers never rest")
        self.now = end
        return told

    def texts(self, name: dns.name.Name) -> dict[int, set[str]]:
        """What the zone holds at a name: type -> texts."""
        content = self.zone.content(DOMAIN)
        return {t: {i.rdata.to_text() for i in s.items} for t, s in content.at(name).items()}


def of(kind: type[Any], events: Events) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# --- Publishing -----------------------------------------------------------------------------


def test_b19_b20_the_records_stand_where_rfc_6281_puts_them() -> None:
    world = World()
    world.up()
    assert world.publish() == [Published(lease=5400)]
    host_id = str(DESK.host_id)
    assert world.texts(records.host_name("desk", DOMAIN)) == {records.AAAA: {host_id}}
    target = f"{DESK.target}.{DOMAIN}."
    assert world.texts(records.service_name("desk", DOMAIN)) == {
        records.SRV: {f"0 0 7809 {target}"}
    }
    assert world.texts(dns.name.from_text(target)) == {
        records.A: {"203.0.113.7"},
        records.AAAA: {host_id},
        records.TXT: {'"model=desk"'},
    }
    assert world.texts(records.hosts_name(DOMAIN)) == {records.PTR: {f"desk.{DOMAIN}."}}


def test_an_outer_ipv6_endpoint_is_a_second_srv_whose_target_holds_only_that_address() -> None:
    both = HostRecords(
        "desk", DESK.host_id, DESK.target, (*DESK.endpoints, ("2001:db8::7", 4500)), DESK.info
    )
    world = World()
    world.up()
    world.publish(both)
    target6 = f"{DESK.target}-v6.{DOMAIN}."
    assert f"1 0 4500 {target6}" in world.texts(records.service_name("desk", DOMAIN))[records.SRV]
    assert world.texts(dns.name.from_text(target6)) == {records.AAAA: {"2001:db8::7"}}
    assert world.lookup("desk") == [HostFound(both)]


def test_a_move_replaces_the_old_endpoint_at_once() -> None:
    world = World()
    world.up()
    world.publish()
    moved = HostRecords("desk", DESK.host_id, DESK.target, (("2001:db8::9", 4501),))
    assert world.publish(moved) == [Published(lease=5400)]
    assert world.lookup("desk") == [HostFound(moved)]
    assert records.A not in world.texts(records.target_name(DESK.target, DOMAIN))


def test_b54_the_target_of_an_earlier_boot_is_removed_by_a_new_process() -> None:
    store = MemoryStore()
    before = World(server(store))
    before.up()
    before.publish()
    after = World(before.zone)
    after.up()
    reborn = HostRecords(
        "desk", IPv6Address("fd99::1"), "AutoTunnel-" + "-".join(["AA"] * 8), DESK.endpoints
    )
    after.publish(reborn)
    assert after.texts(records.target_name(DESK.target, DOMAIN)) == {}
    assert after.lookup("desk") == [HostFound(reborn)]


def test_b54_a_new_target_within_one_process_removes_the_old_one() -> None:
    world = World()
    world.up()
    world.publish()
    world.publish(
        HostRecords("desk", DESK.host_id, "AutoTunnel-" + "-".join(["AB"] * 8), DESK.endpoints)
    )
    assert world.texts(records.target_name(DESK.target, DOMAIN)) == {}


def test_b41_a_server_without_leases_is_refreshed_every_45_minutes_and_its_serial_rests() -> None:
    world = World()

    def know_no_lease(wire: bytes) -> bytes:
        """Answer every UPDATE without an option, as BIND, Knot and PowerDNS do."""
        if wire[2] >> 3 & 15 != 5:
            return wire
        find = tsig.verify(world.sent[-1], lambda n, a: KEY, world.unix)
        assert isinstance(find, tsig.Verified)
        return tsig.sign(wire[:4] + bytes(8), KEY, world.unix, request_mac=find.mac)[0]

    world.tamper = know_no_lease
    world.up()
    world.publish()
    serial = world.zone.content(DOMAIN).soa.serial
    told = world.advance(2 * 2700 + 10)
    assert told == [Published(lease=None)] * 2
    assert world.zone.content(DOMAIN).soa.serial == serial


def test_b40_a_granted_lease_is_refreshed_at_80_to_85_percent() -> None:
    world = World()

    def grant(wire: bytes) -> bytes:
        """Grant 1800 s in every UPDATE's answer, as a server with leases will."""
        if wire[2] >> 3 & 15 != 5:
            return wire
        find = tsig.verify(world.sent[-1], lambda n, a: KEY, world.unix)
        assert isinstance(find, tsig.Verified)
        opt = b"\x00\x00\x29\x04\xd0" + bytes(4) + b"\x00\x08\x00\x02\x00\x04" + (1800).to_bytes(4)
        bare = wire[:4] + bytes(6) + b"\x00\x01" + opt
        return tsig.sign(bare, KEY, world.unix, request_mac=find.mac)[0]

    world.tamper = grant
    world.up()
    assert world.publish() == [Published(lease=1800)]
    assert world.advance(1800 * 0.8 - 1) == []
    assert world.advance(1800 * 0.05 + 2) == [Published(lease=1800)]


def test_the_update_asks_for_a_lease_of_90_minutes() -> None:
    world = World()
    world.up()
    world.publish()
    assert world.sent[-1].count(bytes.fromhex("00020004") + (5400).to_bytes(4)) == 1


def test_what_is_published_before_the_transport_is_up_is_sent_when_it_is() -> None:
    world = World()
    assert world.publish() == []
    assert world.sent == []
    assert of(Published, world.up()) == [Published(5400)]


def test_a_new_connection_publishes_again() -> None:
    world = World()
    world.up()
    world.publish()
    world.client.transport_down("the cable is out", world.now, world.unix)
    assert of(Published, world.up()) == [Published(5400)]


def test_a_change_during_an_update_is_sent_after_it() -> None:
    world = World()
    world.up()
    first = world.client.publish(DESK, world.now, world.unix)
    moved = HostRecords("desk", DESK.host_id, DESK.target, (("203.0.113.8", 4500),))
    assert world.client.publish(moved, world.now, world.unix) == []
    world.run(first)
    assert world.lookup("desk") == [HostFound(moved)]


def test_records_of_another_label_are_refused() -> None:
    world = World(label="lap")
    with pytest.raises(records.RecordsError):
        world.publish(DESK)


def test_the_home_agents_that_relay_for_a_host_stand_at_a_name_of_their_own() -> None:
    """DESIGN "Records": `_autotunnel6`, found with the rest, replaced and withdrawn with it."""
    world = World()
    world.up()
    agents = (IPv6Address("fd00::a"), IPv6Address("fd00::b"))
    world.publish(replace(DESK, home_agents=agents[::-1]))
    name = records.relays_name("desk", DOMAIN)
    assert world.texts(name) == {records.AAAA: {"fd00::a", "fd00::b"}}
    assert world.lookup("desk") == [HostFound(replace(DESK, home_agents=agents))]
    world.publish(replace(DESK, home_agents=agents[:1]))
    assert world.texts(name) == {records.AAAA: {"fd00::a"}}
    world.publish(DESK)
    assert world.texts(name) == {}
    world.publish(replace(DESK, home_agents=agents))
    world.run(world.client.withdraw(world.now, world.unix))
    assert world.texts(name) == {}


def test_withdrawing_leaves_nothing_of_the_host_and_all_of_the_others() -> None:
    world = World()
    world.up()
    world.publish()
    lap = HostRecords(
        "lap",
        IPv6Address("fd02::2"),
        "AutoTunnel-" + "-".join(["02"] * 8),
        (("203.0.113.9", 4500),),
    )
    other = World(world.zone, label="lap")
    other.up()
    other.publish(lap)
    assert world.withdraw() == [Withdrawn()]
    gone = [
        records.host_name("desk", DOMAIN),
        records.service_name("desk", DOMAIN),
        records.target_name(DESK.target, DOMAIN),
    ]
    assert [world.texts(name) for name in gone] == [{}, {}, {}]
    assert other.lookup("lap") == [HostFound(lap)]
    assert world.texts(records.hosts_name(DOMAIN)) == {records.PTR: {f"lap.{DOMAIN}."}}
    assert world.client.next_timer() is None


def test_withdrawing_what_was_never_published_is_done_at_once() -> None:
    assert World().withdraw() == [Withdrawn()]


def test_a_withdrawal_without_answer_gives_up_within_its_time() -> None:
    world = World()
    world.up()
    world.publish()
    world.lose = lambda wire: True
    assert world.withdraw() == []
    told = world.advance(3.0)
    assert "did not confirm" in told[-1].reason
    assert world.client.next_timer() is None


# --- Looking up -----------------------------------------------------------------------------


def test_b48_the_chain_ends_with_the_hosts_records() -> None:
    world = World()
    world.up()
    world.publish()
    asker = World(world.zone, label="lap")
    asker.up()
    assert asker.lookup("DESK") == [HostFound(DESK)]
    asked = [tsig.verify(wire, lambda n, a: KEY, UNIX) for wire in asker.sent]
    assert len(asked) == 5
    assert all(isinstance(verdict, tsig.Verified) for verdict in asked)


def test_a_host_that_the_zone_does_not_know_is_definitely_not_there() -> None:
    world = World()
    world.up()
    (event,) = world.lookup("nobody")
    assert event == HostNotFound(
        "nobody", "the zone knows no host nobody.alice.members.example", definite=True
    )


def test_a_host_without_an_endpoint_is_not_found_but_exists() -> None:
    world = World()
    world.up()
    world.publish(HostRecords("desk", DESK.host_id, DESK.target, ()))
    (event,) = world.lookup("desk")
    assert isinstance(event, HostNotFound)
    assert not event.definite
    assert "no endpoint" in event.reason


def test_two_lookups_of_one_host_share_their_questions() -> None:
    world = World()
    world.up()
    world.publish()
    first = world.client.lookup("desk", world.now, world.unix)
    assert world.client.lookup("desk", world.now, world.unix) == []
    assert world.run(first) == [HostFound(DESK)]


def test_lookups_under_way_are_bounded() -> None:
    world = World(settings=ClientSettings(max_lookups=3))
    for label in ("a", "b", "c"):
        assert world.lookup(label) == []
    (event,) = world.lookup("d")
    assert isinstance(event, HostNotFound)
    assert "too many" in event.reason


@pytest.mark.parametrize("label", ["", "a.b", "x" * 64, "a\\.b", "ü" * 70])
def test_what_is_no_label_is_not_asked_for(label: str) -> None:
    world = World()
    world.up()
    (event,) = world.lookup(label)
    assert isinstance(event, HostNotFound)
    assert event.definite
    assert world.sent == []


def test_all_hosts_are_listed_sorted_and_again_with_each_change() -> None:
    world = World()
    world.up()
    listed = world.run(world.client.watch_hosts(world.now, world.unix)) + world.advance(5)
    assert of(HostsListed, listed) == [HostsListed(())]
    world.publish()
    lap = World(world.zone, label="lap")
    lap.up()
    lap.publish(
        HostRecords("lap", IPv6Address("fd02::2"), "AutoTunnel-" + "-".join(["02"] * 8), ())
    )
    assert of(HostsListed, world.advance(60)) == [HostsListed(("desk", "lap"))]


def test_a_lookup_waits_for_the_transport_and_fails_in_its_time() -> None:
    world = World()
    assert world.lookup("desk") == []
    told = world.advance(10)
    assert [type(event) for event in told] == [ZoneProblem, HostNotFound]
    world.lookup("desk")
    assert of(HostNotFound, world.up())[0].definite


# --- When something is wrong ----------------------------------------------------------------


@pytest.mark.parametrize(("ahead", "words"), [(4000, "4000 s ahead of"), (-4000, "4000 s behind")])
def test_clock_skew_is_told_once_with_its_size_and_fix(ahead: int, words: str) -> None:
    world = World(ahead=ahead)
    told = world.up() + world.publish() + world.lookup("desk") + world.advance(600)
    problems = of(ZoneProblem, told)
    assert problems == [
        ZoneProblem(
            f"your clock is {words} the rendezvous; fix the clock (e.g. timedatectl set-ntp true)"
        )
    ]
    world.ahead = 0  # the person mended the clock
    healed = world.advance(120)
    assert of(ZoneFine, healed) == [ZoneFine()]
    assert of(Published, healed) == [Published(5400)]


def test_a_wrong_secret_is_told_as_such_and_the_lookup_fails_soon() -> None:
    world = World(key=TsigKey(KEY.name, bytes(32)))
    told = world.up() + world.lookup("desk") + world.advance(2)
    assert [type(event) for event in told] == [ZoneProblem, HostNotFound]
    assert "account secret" in of(ZoneProblem, told)[0].reason
    again = world.lookup("desk") + world.advance(2)
    assert of(ZoneProblem, again) == []


def test_an_unknown_account_is_told_as_such() -> None:
    world = World(key=TsigKey("bob.members.example.", SECRET))
    told = world.up() + world.publish() + world.advance(12)
    (problem,) = of(ZoneProblem, told)
    assert "does not know this account" in problem.reason


def test_a_server_that_signs_with_another_key_is_not_believed() -> None:
    world = World()
    world.zone = server(secret=bytes(32))
    world.zone._find_key = lambda name, algorithm: None
    told = world.up() + world.lookup("desk") + world.advance(12)
    assert of(HostFound, told) == []
    assert of(HostNotFound, told)[0].definite is False


def test_an_unsigned_answer_is_never_accepted_and_the_true_one_still_is() -> None:
    world = World()
    world.up()
    world.publish()
    (first, *others) = world.client.lookup("desk", world.now, world.unix)
    assert isinstance(first, SendZone)
    forged = first.wire[:2] + b"\x84\x03" + first.wire[4:]
    assert world.client.receive(forged, world.now, world.unix) == []
    refused = tsig.verify(first.wire, lambda n, a: None, UNIX)
    assert isinstance(refused, tsig.TsigFailure)
    badkey = tsig.attach_error(first.wire[:2] + b"\xa8\x09" + bytes(8), refused, UNIX)
    assert world.client.receive(badkey, world.now, world.unix) == []
    assert of(HostFound, world.run([first, *others])) == [HostFound(DESK)]


def test_an_answer_to_another_request_is_not_accepted() -> None:
    world = World()
    world.up()
    world.publish()
    commands = world.client.lookup("desk", world.now, world.unix)
    wires = [command.wire for command in commands if isinstance(command, SendZone)]
    (answer,) = world.zone.handle(wires[0], ("192.0.2.1", 1), "tls", world.unix)
    swapped = wires[1][:2] + answer[2:]
    assert world.client.receive(swapped, world.now, world.unix) == []
    assert of(HostFound, world.run(commands)) == [HostFound(DESK)]


def test_silence_is_told_once_and_its_end_too() -> None:
    world = World()
    world.up()
    world.lose = lambda wire: True
    told = world.publish() + world.advance(300)
    assert len(of(ZoneProblem, told)) == 1
    assert "does not answer" in of(ZoneProblem, told)[0].reason
    world.lose = lambda wire: False
    assert of(ZoneFine, world.advance(120)) == [ZoneFine()]


def test_a_lost_transport_is_told_once_and_waiting_lookups_survive_it() -> None:
    world = World()
    world.up()
    world.publish()
    lost = world.client.lookup("desk", world.now, world.unix)
    assert lost
    down = world.client.transport_down("connection refused", world.now, world.unix)
    assert down == [ZoneProblem("the rendezvous cannot be reached: connection refused")]
    assert world.client.transport_down("connection refused", world.now, world.unix) == []
    back = world.up()
    assert of(HostFound, back) == [HostFound(DESK)]
    assert of(ZoneFine, back) == [ZoneFine()]


def test_a_refused_update_is_told_once_with_the_servers_words_and_tried_again() -> None:
    store = MemoryStore()
    world = World(server(store))
    world.up()
    store.fail = True
    told = world.publish() + world.advance(300)
    (problem,) = of(ZoneProblem, told)
    assert "SERVFAIL: the store failed" in problem.reason
    assert of(HostNotFound, world.lookup("desk"))[0].definite  # queries work, and do not mend it
    store.fail = False
    assert world.advance(61) == [ZoneFine(), Published(5400)]


def test_udp_requests_are_retransmitted_with_doubling_pauses_and_answered_once() -> None:
    world = World(settings=ClientSettings(reliable=False), transport="udp")
    world.up()
    counted: list[float] = []

    def lose(wire: bytes) -> bool:
        counted.append(world.now)
        return len(counted) < 4

    world.lose = lose
    world.publish()
    told = world.advance(9)
    assert [at - counted[0] for at in counted[:4]] == [0, 1, 3, 7]
    assert told == [Published(5400)]


def test_octets_that_are_no_message_are_counted_and_ignored() -> None:
    world = World()
    world.up()
    for wire in (b"", b"\x00", bytes(12), b"\xff" * 600):
        assert world.client.receive(wire, world.now, world.unix) == []
    assert world.client.counters["foreign"] == 4
