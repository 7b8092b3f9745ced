"""NAT-PMP: the sheet's known answers, and its client against a gateway played by the test."""

from __future__ import annotations

import random as pseudo
import struct

import pytest

from discovery.nat.natpmp import (
    ATTEMPTS,
    Epoch,
    NatPmpClient,
    Reply,
    address_request,
    mapping_request,
    read_reply,
)
from discovery.nat.types import Doubted, Mapped, Mapping, NotMapped, SendNat

GATEWAY, LOCAL = "192.168.1.1", ("192.168.1.10", 4500)
SERVER = (GATEWAY, 5351)


def client(seed: int = 1) -> NatPmpClient:
    return NatPmpClient(GATEWAY, LOCAL, pseudo.Random(seed).randbytes)


def address_reply(address: str = "203.0.113.9", epoch: int = 1000, result: int = 0) -> bytes:
    return struct.pack("!BBHI4B", 0, 0x80, result, epoch, *map(int, address.split(".")))


def mapping_reply(port: int = 4500, epoch: int = 1000, result: int = 0, life: int = 7200) -> bytes:
    return struct.pack("!BBHIHHI", 0, 0x81, result, epoch, 4500, port, life)


def granted(machine: NatPmpClient, now: float = 0.0, port: int = 4500) -> Mapping:
    """Play a gateway that grants at once."""
    machine.start(now)
    machine.receive(address_reply(), SERVER, now)
    (made,) = machine.receive(mapping_reply(port), SERVER, now)
    assert isinstance(made, Mapped)
    return made.mapping


def test_the_sheets_known_answers() -> None:
    assert mapping_request(4500, 4500, 7200).hex() == "000100001194119400001c20"
    assert mapping_request(4500, 0, 0).hex() == "000100001194000000000000"
    reply = read_reply(bytes.fromhex("00810000000003e81194119400001c20"))
    assert reply == Reply(0x81, 0, 1000, None, 4500, 4500, 7200)
    reply = read_reply(bytes.fromhex("00800000000003e8cb007109"))
    assert reply == Reply(0x80, 0, 1000, "203.0.113.9")


def test_the_address_is_asked_first_and_then_the_port_and_what_returns_counts() -> None:
    """B26, B27, B31: serial requests, and another port than the wish is taken."""
    machine = client()
    assert machine.start(0.0) == [SendNat(address_request(), SERVER)]
    out = machine.receive(address_reply(), SERVER, 0.1)
    assert out == [SendNat(mapping_request(4500, 4500, 7200), SERVER)]
    mapping = Mapping("nat-pmp", GATEWAY, LOCAL, ("203.0.113.9", 61000), 7200)
    assert machine.receive(mapping_reply(61000), SERVER, 0.2) == [Mapped(mapping)]
    assert not mapping.double_nat
    assert machine.next_timer() == pytest.approx(0.2 + 3600)


def test_it_is_renewed_at_half_its_life_with_the_port_that_was_given() -> None:
    """B28, B29: the renewal asks for the assigned port, before and after a crash of the NAT."""
    machine = client()
    granted(machine, port=61000)
    assert machine.advance(3599.0) == []
    assert machine.advance(3600.0) == [SendNat(address_request(), SERVER)]
    out = machine.receive(address_reply(epoch=4600), SERVER, 3600.1)
    assert out == [SendNat(mapping_request(4500, 61000, 7200), SERVER)]


def test_a_silent_gateway_is_asked_nine_times_and_doubling() -> None:
    machine = client()
    sent, at = [0.0], 0.0
    machine.start(0.0)
    while True:
        due = machine.next_timer()
        assert due is not None
        (out,) = machine.advance(due)
        at = due
        if isinstance(out, NotMapped):
            break
        sent.append(at)
    assert sent == [0.25 * (2**n - 1) for n in range(ATTEMPTS)]
    assert at == pytest.approx(127.75)
    assert out.silent


def test_an_icmp_error_ends_the_waiting_at_once() -> None:
    machine = client()
    machine.start(0.0)
    (out,) = machine.refused(0.01)
    assert isinstance(out, NotMapped)
    assert out.silent


def test_a_gateway_that_falls_silent_keeps_its_mapping_to_its_end() -> None:
    machine = client()
    mapping = granted(machine)
    now, out = 0.0, []
    while machine.mapping is not None:
        due = machine.next_timer()
        assert due is not None
        now, out = due, machine.advance(due)
    assert 7200 <= now < 7200 + 128
    assert isinstance(out[0], NotMapped)
    assert mapping.lifetime == 7200


@pytest.mark.parametrize(
    ("result", "words"),
    [(1, "version"), (2, "refuses"), (3, "external"), (4, "no more"), (5, "request"), (77, "77")],
)
def test_a_refusal_is_told_in_words(result: int, words: str) -> None:
    machine = client()
    machine.start(0.0)
    (out,) = machine.receive(address_reply("0.0.0.0", result=result), SERVER, 0.1)
    assert isinstance(out, NotMapped)
    assert words in out.reason
    assert not out.silent
    assert machine.next_timer() == pytest.approx(300.1)


def test_double_nat_is_seen_in_the_address() -> None:
    """B33: what the gateway calls outside is inside of another NAT."""
    machine = client()
    machine.start(0.0)
    machine.receive(address_reply("100.64.7.1"), SERVER, 0.0)
    (made,) = machine.receive(mapping_reply(), SERVER, 0.0)
    assert isinstance(made, Mapped)
    assert made.mapping.double_nat


@pytest.mark.parametrize("source", [("192.168.1.2", 5351), (GATEWAY, 5350)])
def test_words_of_strangers_are_dropped(source: tuple[str, int]) -> None:
    machine = client()
    machine.start(0.0)
    assert machine.receive(address_reply(), source, 0.1) == []
    assert machine.receive(address_reply(result=2), source, 0.1) == []


@pytest.mark.parametrize(
    ("seconds", "epoch", "lost"),
    [
        (800, 1800, False),
        (800, 1698, False),  # 1000 + 7/8 × 800 - 2
        (800, 1697, True),
        (8, 1005, False),
        (8, 1004, True),
        (0, 998, False),
        (0, 997, True),
        (10, 0, True),
    ],
)
def test_a_clock_that_runs_slower_than_seven_eighths_has_lost_its_state(
    seconds: float, epoch: int, lost: bool
) -> None:
    clock = Epoch()
    assert not clock.lost(1000, 0.0)
    assert clock.lost(epoch, seconds) is lost


def test_a_reboot_brings_the_mapping_back_within_five_seconds_and_serially() -> None:
    """B28: the gateway's announcement has a clock that began anew."""
    machine = client()
    granted(machine, port=61000)
    assert machine.receive(address_reply(epoch=1), SERVER, 100.0) == [Doubted(GATEWAY)]
    due = machine.next_timer()
    assert due is not None
    assert 100.0 <= due <= 105.0
    assert machine.advance(due) == [SendNat(address_request(), SERVER)]
    out = machine.receive(address_reply(epoch=5), SERVER, due)
    assert out == [SendNat(mapping_request(4500, 61000, 7200), SERVER)]


def test_an_announced_address_counts_at_once() -> None:
    """B32, and what miniupnpd does: the old address with the old clock, then the new one with a
    new clock."""
    machine = client()
    granted(machine)
    assert machine.receive(address_reply(epoch=1100), SERVER, 100.0) == []
    (moved,) = machine.receive(address_reply("203.0.113.77", epoch=0), SERVER, 100.1)
    assert isinstance(moved, Mapped)
    assert moved.mapping.external == ("203.0.113.77", 4500)
    again = machine.next_timer()
    assert again is not None
    assert again <= 105.1
    # Its repetitions change nothing more.
    assert machine.receive(address_reply("203.0.113.77", epoch=0), SERVER, 100.4) == []


def test_the_mapping_is_deleted_at_the_end_and_at_most_twice() -> None:
    """B30."""
    machine = client()
    granted(machine)
    goodbye = SendNat(mapping_request(4500, 0, 0), SERVER)
    assert machine.stop(50.0) == [goodbye]
    assert machine.advance(50.25) == [goodbye]
    assert machine.advance(50.75) == []
    assert machine.next_timer() is None


def test_an_acknowledged_good_bye_is_not_repeated() -> None:
    machine = client()
    granted(machine)
    machine.stop(50.0)
    assert machine.receive(mapping_reply(0, life=0), SERVER, 50.1) == []
    assert machine.next_timer() is None


def test_nothing_is_deleted_where_nothing_was_made() -> None:
    machine = client()
    machine.start(0.0)
    assert machine.stop(0.1) == []
    assert machine.next_timer() is None


def test_an_answer_about_another_port_is_not_ours() -> None:
    machine = client()
    machine.start(0.0)
    machine.receive(address_reply(), SERVER, 0.0)
    other = struct.pack("!BBHIHHI", 0, 0x81, 0, 1000, 80, 80, 7200)
    assert machine.receive(other, SERVER, 0.1) == []
    assert machine.mapping is None


def test_a_lifetime_without_sense_is_bounded() -> None:
    for life, kept in ((1, 60), (2**32 - 1, 86_400)):
        machine = client()
        machine.start(0.0)
        machine.receive(address_reply(), SERVER, 0.0)
        (made,) = machine.receive(mapping_reply(life=life), SERVER, 0.0)
        assert isinstance(made, Mapped)
        assert made.mapping.lifetime == kept
