"""UPnP IGD: the order of actions, and what each of its errors leads to."""

from __future__ import annotations

import random as pseudo

import pytest

from discovery.nat.types import Mapped, NotMapped, UpnpCall
from discovery.nat.upnp import UpnpClient

GATEWAY, LOCAL = "192.168.1.1", ("192.168.1.10", 4500)


def client(version: int = 1) -> UpnpClient:
    return UpnpClient(GATEWAY, LOCAL, pseudo.Random(1).randbytes, version=version)


def the_call(commands: list) -> UpnpCall:
    (call,) = commands
    assert isinstance(call, UpnpCall)
    return call


def granted(machine: UpnpClient, address: str = "203.0.113.9", now: float = 0.0) -> Mapped:
    call = the_call(machine.start(now))
    call = the_call(machine.answered(call.ticket, {}, now))
    assert call.action == "GetExternalIPAddress"
    (made,) = machine.answered(call.ticket, {"NewExternalIPAddress": address}, now)
    assert isinstance(made, Mapped)
    return made


def test_version_1_adds_the_port_then_asks_for_the_address() -> None:
    machine = client()
    call = the_call(machine.start(0.0))
    assert call.action == "AddPortMapping"
    assert call.arguments == (
        ("NewRemoteHost", ""),
        ("NewExternalPort", 4500),
        ("NewProtocol", "UDP"),
        ("NewInternalPort", 4500),
        ("NewInternalClient", "192.168.1.10"),
        ("NewEnabled", True),
        ("NewPortMappingDescription", "autotunnel"),
        ("NewLeaseDuration", 7200),
    )
    mapping = granted(machine).mapping
    assert (mapping.external, mapping.lifetime) == (("203.0.113.9", 4500), 7200)


def test_version_2_takes_any_port_that_the_gateway_reserves() -> None:
    machine = client(version=2)
    call = the_call(machine.start(0.0))
    assert call.action == "AddAnyPortMapping"
    call = the_call(machine.answered(call.ticket, {"NewReservedPort": 61000}, 0.0))
    (made,) = machine.answered(call.ticket, {"NewExternalIPAddress": "203.0.113.9"}, 0.0)
    assert isinstance(made, Mapped)
    assert made.mapping.external == ("203.0.113.9", 61000)


def test_a_gateway_that_calls_itself_2_without_the_action_is_asked_as_1() -> None:
    machine = client(version=2)
    call = the_call(machine.start(0.0))
    assert the_call(machine.failed(call.ticket, 401, "", 0.0)).action == "AddPortMapping"


def test_conflict_then_permanent_then_failed_each_has_its_answer() -> None:
    """718: another port. 725: without an end. 501: once more, and then it is the last word."""
    machine = client()
    call = the_call(machine.start(0.0))
    call = the_call(machine.failed(call.ticket, 718, "ConflictInMappingEntry", 0.0))
    port = dict(call.arguments)["NewExternalPort"]
    assert isinstance(port, int)
    assert 49152 <= port < 65536
    call = the_call(machine.failed(call.ticket, 725, "OnlyPermanentLeasesSupported", 0.0))
    assert dict(call.arguments)["NewLeaseDuration"] == 0
    assert dict(call.arguments)["NewExternalPort"] == port
    call = the_call(machine.failed(call.ticket, 501, "ActionFailed", 0.0))
    (out,) = machine.failed(call.ticket, 501, "ActionFailed", 0.0)
    assert isinstance(out, NotMapped)
    assert "501" in out.reason


def test_conflicts_without_end_are_given_up() -> None:
    machine = client()
    commands = machine.start(0.0)
    for _ in range(4):
        commands = machine.failed(the_call(commands).ticket, 718, "", 0.0)
    (out,) = machine.failed(the_call(commands).ticket, 718, "", 0.0)
    assert isinstance(out, NotMapped)
    assert machine.next_timer() == 300.0


def test_a_gateway_that_wants_the_same_ports_gets_them() -> None:
    machine = UpnpClient(GATEWAY, LOCAL, pseudo.Random(1).randbytes, wish=61000)
    call = the_call(machine.start(0.0))
    call = the_call(machine.failed(call.ticket, 724, "", 0.0))
    assert dict(call.arguments)["NewExternalPort"] == 4500


@pytest.mark.parametrize(("code", "words"), [(606, "refuses"), (728, "no more"), (None, "answer")])
def test_a_refusal_is_told_in_words(code: int | None, words: str) -> None:
    machine = client()
    call = the_call(machine.start(0.0))
    (out,) = machine.failed(call.ticket, code, "timeout", 0.0)
    assert isinstance(out, NotMapped)
    assert words in out.reason


@pytest.mark.parametrize("address", ["", "0.0.0.0", "10.1.2.3", "100.64.0.9"])
def test_an_address_that_is_not_outside_is_a_double_nat(address: str) -> None:
    assert granted(client(), address).mapping.double_nat


def test_a_mapping_is_looked_up_and_made_again_where_the_gateway_lost_it() -> None:
    machine = client()
    granted(machine)
    assert machine.next_timer() == 900.0
    call = the_call(machine.advance(900.0))
    assert call.action == "GetSpecificPortMappingEntry"
    call = the_call(machine.failed(call.ticket, 714, "NoSuchEntryInArray", 900.1))
    assert call.action == "AddPortMapping"


def test_a_mapping_that_now_leads_elsewhere_is_made_again() -> None:
    machine = client()
    granted(machine)
    call = the_call(machine.advance(900.0))
    entry = {"NewInternalClient": "192.168.1.66", "NewInternalPort": 4500}
    assert the_call(machine.answered(call.ticket, entry, 900.1)).action == "AddPortMapping"


def test_a_look_tells_a_changed_address() -> None:
    machine = client()
    granted(machine)
    call = the_call(machine.advance(900.0))
    entry = {"NewInternalClient": "192.168.1.10", "NewInternalPort": 4500}
    call = the_call(machine.answered(call.ticket, entry, 900.1))
    (made,) = machine.answered(call.ticket, {"NewExternalIPAddress": "203.0.113.77"}, 900.2)
    assert isinstance(made, Mapped)
    assert made.mapping.external == ("203.0.113.77", 4500)


def test_it_is_renewed_at_half_its_life() -> None:
    machine = client()
    granted(machine)
    now = 0.0
    while now < 3600:
        due = machine.next_timer()
        assert due is not None
        now, call = due, the_call(machine.advance(due))
        if call.action == "AddPortMapping":
            break
        entry = {"NewInternalClient": "192.168.1.10", "NewInternalPort": 4500}
        call = the_call(machine.answered(call.ticket, entry, now))
        machine.answered(call.ticket, {"NewExternalIPAddress": "203.0.113.9"}, now)
    assert now == 3600


def test_the_mapping_is_deleted_at_the_end() -> None:
    machine = client()
    granted(machine)
    call = the_call(machine.stop())
    assert call.action == "DeletePortMapping"
    assert dict(call.arguments) == {
        "NewRemoteHost": "",
        "NewExternalPort": 4500,
        "NewProtocol": "UDP",
    }
    assert machine.stop() == []


def test_late_answers_are_dropped() -> None:
    machine = client()
    late = the_call(machine.start(0.0))
    machine.start(1.0)
    assert machine.answered(late.ticket, {}, 1.1) == []
    assert machine.failed(late.ticket, 606, "", 1.1) == []


def test_an_answer_that_never_comes_is_not_waited_for_for_ever() -> None:
    machine = client()
    machine.start(0.0)
    assert the_call(machine.advance(300.0)).action == "AddPortMapping"
