"""PCP: the sheet's known answers, and its client against a gateway played by the test."""

from __future__ import annotations

import random as pseudo
import struct
from itertools import pairwise

import pytest

from discovery.nat.pcp import Epoch, PcpClient, map_request, mapped, other_version, read_reply
from discovery.nat.types import Doubted, Mapped, Mapping, NotMapped, OtherVersion, SendNat

GATEWAY, LOCAL = "192.168.1.1", ("192.168.1.10", 4500)
SERVER = (GATEWAY, 5351)
NONCE = bytes(range(1, 13))


def client(seed: int = 1) -> PcpClient:
    return PcpClient(GATEWAY, LOCAL, pseudo.Random(seed).randbytes)


def sent(machine: PcpClient, now: float) -> bytes:
    (out,) = machine.start(now)
    assert isinstance(out, SendNat)
    return out.data


def reply_to(
    request: bytes,
    *,
    epoch: int = 1000,
    external: tuple[str, int] = ("203.0.113.9", 4500),
    life: int = 7200,
    result: int = 0,
) -> bytes:
    head = struct.pack("!BBBBII", 2, 0x80 | request[1], 0, result, life, epoch) + bytes(12)
    body = request[24:42] + struct.pack("!H", external[1]) + mapped(external[0])
    return head + body


def announce(epoch: int) -> bytes:
    return struct.pack("!BBBBII", 2, 0x80, 0, 0, 0, epoch) + bytes(12)


def granted(machine: PcpClient, now: float = 0.0, life: int = 7200) -> bytes:
    request = sent(machine, now)
    (made,) = machine.receive(reply_to(request, life=life), SERVER, now)
    assert isinstance(made, Mapped)
    return request


def test_the_sheets_known_answers() -> None:
    ask = (
        "0201000000001c20" "00000000000000000000ffffc0a8010a" "0102030405060708090a0b0c"
        "11000000" "1194" "1194" "00000000000000000000ffff00000000"
    )  # fmt: skip
    asked = map_request(LOCAL, NONCE, 7200, ("0.0.0.0", 4500))
    assert asked.hex() == ask
    got = (
        "0281000000001c20" "000003e8" "000000000000000000000000" "0102030405060708090a0b0c"
        "11000000" "1194" "1194" "00000000000000000000ffffcb007109"
    )  # fmt: skip
    reply = read_reply(bytes.fromhex(got))
    assert reply is not None
    assert (reply.lifetime, reply.epoch, reply.nonce) == (7200, 1000, NONCE)
    assert (reply.internal_port, reply.external) == (4500, ("203.0.113.9", 4500))


def test_a_mapping_is_asked_for_and_taken_as_it_is_given() -> None:
    machine = client()
    request = sent(machine, 0.0)
    wish = ("0.0.0.0", 4500)
    assert request == map_request(LOCAL, request[24:36], 7200, wish)
    (made,) = machine.receive(reply_to(request, external=("203.0.113.9", 61000)), SERVER, 0.1)
    assert made == Mapped(Mapping("pcp", GATEWAY, LOCAL, ("203.0.113.9", 61000), 7200))


def test_over_ipv6_it_is_a_pinhole() -> None:
    local = ("2001:db8::10", 4500)
    machine = PcpClient("fe80::1", local, pseudo.Random(3).randbytes)
    request = sent(machine, 0.0)
    assert request[8:24] == mapped("2001:db8::10")
    assert request[44:60] == bytes(16)
    (made,) = machine.receive(reply_to(request, external=local), ("fe80::1", 5351), 0.1)
    assert isinstance(made, Mapped)
    assert made.mapping.external == local
    assert not made.mapping.double_nat


def test_a_silent_server_is_asked_for_ever_at_growing_distances() -> None:
    machine = client()
    request = sent(machine, 0.0)
    told, at, before = [], 0.0, 0.0
    for _ in range(16):
        due = machine.next_timer()
        assert due is not None
        wait, at = due - at, due
        assert 0.9 * min(max(3.0, 2 * before), 1024) <= wait <= 1.1 * max(3.0, 2 * before)
        before = wait
        first, *more = machine.advance(due)
        assert first == SendNat(request, SERVER)  # the same nonce
        told += more
    assert len(told) == 1
    assert isinstance(told[0], NotMapped)
    assert told[0].silent


@pytest.mark.parametrize(
    "shape",
    [
        "0000000100000bb8",  # RFC 6886 §3.5: the operation is 0, the response bit is not set
        "0081000100000bb8",
        "0080000100000bb800000000",
        "0081000100000bb80000000000000000",
    ],
)
def test_a_gateway_of_nat_pmp_is_known_by_its_version(shape: str) -> None:
    machine = client()
    machine.start(0.0)
    assert other_version(bytes.fromhex(shape))
    assert machine.receive(bytes.fromhex(shape), SERVER, 0.1) == [OtherVersion(GATEWAY)]
    due = machine.next_timer()
    assert due == pytest.approx(1800.1)  # and PCP is tried again: nobody remembers for ever
    assert isinstance(machine.advance(due)[0], SendNat)


def test_renewals_come_one_by_one_at_a_half_then_three_quarters() -> None:
    machine = client()
    granted(machine)
    for low, high in ((1 / 2, 5 / 8), (3 / 4, 13 / 16), (7 / 8, 29 / 32)):
        due = machine.next_timer()
        assert due is not None
        assert low * 7200 <= due <= high * 7200
        (out,) = machine.advance(due)
        assert isinstance(out, SendNat)
        assert out.data[44:60] == mapped("203.0.113.9")  # what is assigned is asked for again
    lost = None
    while lost is None:
        due = machine.next_timer()
        assert due is not None
        lost = next((one for one in machine.advance(due) if isinstance(one, NotMapped)), None)
    assert due == 7200


def test_renewals_are_never_closer_than_four_seconds() -> None:
    machine = client()
    granted(machine, life=60)
    times = []
    while machine.mapping is not None:
        due = machine.next_timer()
        assert due is not None
        machine.advance(due)
        times.append(due)
    *renewals, _expiry = times
    assert all(after - before >= 4 for before, after in pairwise(renewals))


@pytest.mark.parametrize(("result", "pause"), [(2, 1800), (7, 30), (8, 30), (12, 1800)])
def test_after_an_error_nothing_is_asked_for_its_lifetime(result: int, pause: int) -> None:
    machine = client()
    request = sent(machine, 0.0)
    (out,) = machine.receive(reply_to(request, result=result, life=pause), SERVER, 0.0)
    assert isinstance(out, NotMapped)
    assert machine.advance(pause - 0.1) == []
    assert isinstance(machine.advance(pause)[0], SendNat)


def test_a_nat_between_is_told_as_such() -> None:
    machine = client()
    (out,) = machine.receive(reply_to(sent(machine, 0.0), result=12, life=1800), SERVER, 0.0)
    assert isinstance(out, NotMapped)
    assert "another NAT" in out.reason


def changed(reply: bytes, at: int, value: bytes) -> bytes:
    return reply[:at] + value + reply[at + len(value) :]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda good: changed(good, 24, b"x"),  # the nonce
        lambda good: changed(good, 36, b"\6"),  # TCP
        lambda good: changed(good, 40, b"\0\1"),  # the internal port
        lambda good: changed(good, 1, b"\1"),  # a request
        lambda good: changed(good, 0, b"\3"),  # a version that nobody asked for
        lambda good: good[:56],
        lambda good: good + b"\0",
        lambda good: good + bytes(1100),
    ],
)
def test_what_is_not_the_answer_to_our_question_is_dropped(wrong) -> None:
    machine = client()
    request = sent(machine, 0.0)
    assert machine.receive(wrong(reply_to(request)), SERVER, 0.1) == []
    assert machine.receive(reply_to(request), ("192.168.1.2", 5351), 0.1) == []
    assert machine.receive(reply_to(request), (GATEWAY, 5350), 0.1) == []
    assert machine.mapping is None


@pytest.mark.parametrize(
    ("theirs", "ours", "lost"),
    [
        (1000, 0.0, False),
        (999, 0.0, False),
        (998, 0.0, True),
        (0, 10.0, True),
        (1160, 160.0, False),
        (1160, 148.0, False),  # 148 + 2 is not less than 160 - 10
        (1160, 147.0, True),
        (1148, 160.0, False),
        (1147, 160.0, True),
    ],
)
def test_the_epoch_rule_of_section_8_5(theirs: int, ours: float, lost: bool) -> None:
    clock = Epoch()
    assert not clock.lost(1000, 0.0)
    assert clock.lost(theirs, ours) is lost


def test_an_announced_reboot_makes_the_mapping_again_within_five_seconds() -> None:
    machine = client()
    request = granted(machine)
    assert machine.receive(announce(0), SERVER, 100.0) == [Doubted(GATEWAY)]
    assert machine.receive(announce(0), SERVER, 100.1) == []  # said once
    due = machine.next_timer()
    assert due is not None
    assert 100.0 <= due <= 105.0
    (out,) = machine.advance(due)
    assert isinstance(out, SendNat)
    assert out.data[24:44] == request[24:44]  # nonce, protocol, port and the port that we had
    again = machine.next_timer()
    assert again is not None
    assert again - due < 3.4  # and it is retransmitted as a new request is
    (made,) = machine.receive(reply_to(out.data, epoch=5), SERVER, due)
    assert isinstance(made, Mapped)


def test_an_announcement_of_a_gateway_that_lost_nothing_changes_nothing() -> None:
    machine = client()
    granted(machine)
    due = machine.next_timer()
    assert machine.receive(announce(1100), SERVER, 100.0) == []
    assert machine.next_timer() == due


@pytest.mark.parametrize("epoch", [0, 9])
def test_a_clock_that_has_just_begun_is_a_reboot_too(epoch: int) -> None:
    """A gateway that restarts seconds after its start keeps within the tolerance of §8.5."""
    machine = client()
    request = sent(machine, 0.0)
    machine.receive(reply_to(request, epoch=1), SERVER, 0.0)
    machine.receive(announce(epoch), SERVER, 2.0)
    due = machine.next_timer()
    assert due is not None
    assert due <= 7.0


def test_an_address_that_is_announced_in_nat_pmp_alone_is_heard() -> None:
    """miniupnpd does so: first the old address, then the new one."""
    machine = client()
    granted(machine)
    due = machine.next_timer()
    old, new = (struct.pack("!BBHI4B", 0, 0x80, 0, 9, 203, 0, 113, last) for last in (9, 77))
    assert machine.receive(old, SERVER, 50.0) == []
    assert machine.next_timer() == due
    assert machine.receive(new, SERVER, 50.1) == [Doubted(GATEWAY)]
    due = machine.next_timer()
    assert due is not None
    assert 50.0 <= due <= 55.2
    assert isinstance(machine.advance(due)[0], SendNat)


def test_a_refusal_that_shows_a_private_address_is_a_double_nat() -> None:
    """Result 8 with the private address in the assigned field, as miniupnpd answers."""
    machine = client()
    reply = reply_to(sent(machine, 0.0), result=8, life=30, external=("192.168.0.17", 0))
    (out,) = machine.receive(reply, SERVER, 0.0)
    assert isinstance(out, NotMapped)
    assert "192.168.0.17" in out.reason
    assert "another NAT" in out.reason


def test_an_update_that_nobody_asked_for_counts_at_once() -> None:
    """§11.3: the gateway's address changed; the zone must know now."""
    machine = client()
    request = granted(machine)
    update = reply_to(request, epoch=1100, external=("203.0.113.77", 4500))
    (made,) = machine.receive(update, SERVER, 100.0)
    assert isinstance(made, Mapped)
    assert made.mapping.external == ("203.0.113.77", 4500)


def test_a_mapping_that_the_gateway_ended_is_asked_for_again() -> None:
    machine = client()
    request = granted(machine)
    (out,) = machine.receive(reply_to(request, epoch=1100, life=0), SERVER, 100.0)
    assert isinstance(out, SendNat)


def test_the_delete_names_no_port_and_proves_itself_by_the_nonce() -> None:
    machine = client()
    request = granted(machine)
    goodbye = SendNat(map_request(LOCAL, request[24:36], 0), SERVER)
    assert machine.stop(50.0) == [goodbye]
    due = machine.next_timer()
    assert due is not None
    assert machine.advance(due) == [goodbye]
    due = machine.next_timer()
    assert due is not None
    assert machine.advance(due) == []
    assert machine.next_timer() is None


def test_nothing_more_is_said_after_the_delete_was_answered() -> None:
    machine = client()
    request = granted(machine)
    machine.stop(50.0)
    gone = reply_to(request, epoch=1050, external=("0.0.0.0", 0), life=0)
    assert machine.receive(gone, SERVER, 50.1) == []
    assert machine.next_timer() is None
