"""Services of an account: advertised, found, kept, taken back; whole hosts on a virtual clock."""

from __future__ import annotations

import dataclasses

import dns.name
import pytest

from discovery import records, services
from discovery.services import ServiceError
from discovery.types import Service
from tests.sim.conftest import Make
from tests.sim.scenes import two
from tests.sim.world import DOMAIN, SimHost, World
from tunnel.commands import Advertised, Browsed, Command, NotReached, RecordsSaid
from tunnel.services import MAX_SERVICES, from_json, to_json

SHELL = Service("_ssh._tcp", "Desk", 22, ("user=me",))
PHOTOS = Service("_http._tcp", "Photos", 8080)


def answer(world: World, host: SimHost, ticket: int) -> Command:
    assert world.run(15, lambda: ticket in host.answers)
    return host.answers[ticket]


def advertise(world: World, host: SimHost, service: Service) -> Command:
    return answer(world, host, host.ask(host.node.advertise, service))


def browse(world: World, host: SimHost, kind: str = "") -> list[tuple[Service, str]]:
    said = answer(world, host, host.ask(host.node.browse, kind))
    assert isinstance(said, Browsed)
    return [(one.service, one.label) for one in said.services]


def restarted(host: SimHost) -> SimHost:
    """The host anew, with what it kept on disk."""
    if "services" in host.kept:
        host.config.services, host.config.withdrawn = from_json(host.kept["services"])
    return host.restart()


def test_what_one_host_advertises_the_others_find_until_it_is_taken_back(world_of: Make) -> None:
    world = world_of(1)
    desk, laptop = two(world)
    ticket = desk.ask(desk.node.advertise, SHELL)
    assert answer(world, desk, ticket) == Advertised(ticket, done=True)
    assert isinstance(advertise(world, desk, PHOTOS), Advertised)
    assert browse(world, laptop) == [(PHOTOS, "desk"), (SHELL, "desk")]
    assert browse(world, laptop, "_ssh._tcp") == [(SHELL, "desk")]
    ticket = desk.ask(desk.node.withdraw_service, "_ssh._tcp", "desk")
    assert answer(world, desk, ticket) == Advertised(ticket, done=True)
    assert browse(world, laptop) == [(PHOTOS, "desk")]
    assert from_json(desk.kept["services"]) == ((PHOTOS,), ())
    assert [one["state"] for one in desk.node.services()] == ["published"]


def test_nothing_is_advertised_that_the_owner_did_not_name(world_of: Make) -> None:
    world = world_of(2)
    desk, laptop = two(world)
    world.run(300)
    assert browse(world, laptop) == browse(world, desk) == []
    assert desk.node.services() == []


def test_services_stand_again_after_a_crash_and_go_with_the_host(world_of: Make) -> None:
    world = world_of(3)
    desk, laptop = two(world)
    advertise(world, desk, SHELL)
    desk.kill()
    desk = restarted(desk)
    assert world.run(5, lambda: [one["state"] for one in desk.node.services()] == ["published"])
    assert browse(world, laptop) == [(SHELL, "desk")]
    desk.shutdown()
    assert world.run(5, lambda: desk.finished)
    assert browse(world, laptop) == []
    desk = restarted(desk)  # the owner's word still holds
    assert world.run(5, lambda: browse(world, laptop) == [(SHELL, "desk")])


def test_the_first_who_has_a_name_keeps_it(world_of: Make) -> None:
    world = world_of(4)
    desk, laptop = two(world)
    advertise(world, desk, SHELL)
    theirs = dataclasses.replace(SHELL, port=2222)
    refused = advertise(world, laptop, theirs)
    assert isinstance(refused, NotReached)
    assert "desk advertises 'Desk' (_ssh._tcp) already" in refused.reason
    assert laptop.node.services() == []
    assert browse(world, laptop) == [(SHELL, "desk")]


def test_a_name_that_was_lost_meanwhile_is_taken_again_when_it_is_free(world_of: Make) -> None:
    world = world_of(5)
    desk, laptop = two(world)
    advertise(world, desk, SHELL)
    desk.shutdown()
    world.run(5)
    theirs = dataclasses.replace(SHELL, port=2222)
    advertise(world, laptop, theirs)
    desk = restarted(desk)
    assert world.run(5, lambda: [one["state"] for one in desk.node.services()] == ["refused"])
    assert browse(world, desk) == [(theirs, "laptop")]
    laptop.ask(laptop.node.withdraw_service, "_ssh._tcp", "Desk")
    assert world.run(90, lambda: [one["state"] for one in desk.node.services()] == ["published"])
    assert browse(world, laptop) == [(SHELL, "desk")]


def test_without_a_rendezvous_all_is_kept_and_said_later(world_of: Make) -> None:
    world = world_of(6)
    desk, laptop = two(world)
    advertise(world, desk, PHOTOS)
    world.set_zone(False)
    ticket = desk.ask(desk.node.advertise, SHELL)
    assert answer(world, desk, ticket) == Advertised(ticket, done=False)
    gone = desk.ask(desk.node.withdraw_service, "_http._tcp", "Photos")
    assert answer(world, desk, gone) == Advertised(gone, done=False)
    failed = answer(world, desk, desk.ask(desk.node.browse, ""))
    assert isinstance(failed, NotReached)
    assert from_json(desk.kept["services"]) == ((SHELL,), (PHOTOS,))
    desk.kill()
    desk = restarted(desk)
    world.run(5)
    world.set_zone(True)
    assert world.run(30, lambda: browse(world, laptop) == [(SHELL, "desk")])
    assert from_json(desk.kept["services"]) == ((SHELL,), ())


def test_a_service_that_is_advertised_again_is_replaced(world_of: Make) -> None:
    world = world_of(7)
    desk, laptop = two(world)
    advertise(world, desk, SHELL)
    moved = dataclasses.replace(SHELL, port=2022)
    assert isinstance(advertise(world, desk, moved), Advertised)
    assert world.run(5, lambda: browse(world, laptop) == [(moved, "desk")])


def test_services_are_bounded_and_unknown_ones_are_told(world_of: Make) -> None:
    world = world_of(8)
    desk, _ = two(world)
    tickets = [
        desk.ask(desk.node.advertise, dataclasses.replace(SHELL, name=f"number {number}"))
        for number in range(MAX_SERVICES + 1)
    ]
    said = [answer(world, desk, ticket) for ticket in tickets]
    assert all(one == Advertised(one.ticket, done=True) for one in said[:-1])
    assert isinstance(said[-1], NotReached)
    assert "withdraw one" in said[-1].reason
    unknown = answer(world, desk, desk.ask(desk.node.withdraw_service, "_ssh._tcp", "Nobody"))
    assert isinstance(unknown, NotReached)


def test_one_question_to_the_zone_is_answered_to_all_who_asked(world_of: Make) -> None:
    world = world_of(9)
    desk, laptop = two(world)
    advertise(world, desk, SHELL)
    name = dns.name.from_text(f"_ssh._tcp.{DOMAIN}")
    tickets = [laptop.ask(laptop.node.ask_zone, name, records.PTR) for _ in range(2)]
    for ticket in tickets:
        said = answer(world, laptop, ticket)
        assert isinstance(said, RecordsSaid)
        (pointer,) = said.found.answer
        assert services.instances_in([pointer], "_ssh._tcp", DOMAIN)
    assert laptop.node.name_of(desk.host_id) in (None, f"desk.{DOMAIN}")


def test_a_watcher_is_told_of_what_comes_and_goes_and_then_no_more(world_of: Make) -> None:
    world = world_of(10)
    desk, laptop = two(world)
    laptop.tell(laptop.node.watch_services, "", 1)
    laptop.tell(laptop.node.watch_services, "_ssh._tcp", 1)
    assert browse(world, laptop) == []
    world.run(5)
    before = laptop.stirred
    advertise(world, desk, SHELL)
    assert world.run(1000, lambda: laptop.stirred > before)  # at once by push, else when polled
    assert browse(world, laptop) == [(SHELL, "desk")]
    world.run(5)
    before = laptop.stirred
    desk.ask(desk.node.withdraw_service, "_ssh._tcp", "Desk")
    assert world.run(1000, lambda: laptop.stirred > before)
    for kind in ("", "_ssh._tcp"):
        laptop.tell(laptop.node.watch_services, kind, -1)
    world.run(5)
    before = laptop.stirred
    advertise(world, desk, SHELL)
    world.run(1000)
    assert laptop.stirred == before


def test_the_list_on_disk_is_read_as_it_was_written_or_refused() -> None:
    kept = to_json([SHELL, PHOTOS], [dataclasses.replace(SHELL, name="Was")])
    assert from_json(kept) == ((SHELL, PHOTOS), (dataclasses.replace(SHELL, name="Was"),))
    assert from_json(b"{}") == ((), ())
    for broken in (
        *(b"", b"[]", b'{"services": {}}', b'{"services": [1]}', b"\xff", b"[" * 9999),
        *(b'{"services": [{"type": "_ssh._tcp", "name": "x", "port": "22"}]}',),
        *(b'{"services": [{"type": "_ssh._tcp", "name": "x", "port": 22, "texts": 1}]}',),
        *(b'{"services": [{"type": "_ssh._tcp", "name": "x", "port": 22, "texts": [1]}]}',),
    ):
        with pytest.raises(ServiceError):
            from_json(broken)
