"""STUN: the vectors of RFC 5769, a server and a client that understand each other, strangers."""

from __future__ import annotations

import random as pseudo

import pytest

from discovery.nat.stun import (
    ERROR,
    REQUEST,
    SUCCESS,
    Binding,
    Message,
    NotSeen,
    Seen,
    answer,
    ask,
    is_stun,
    mapped_address,
    read,
    wants_other_port,
)
from discovery.nat.types import SendNat

SERVER = ("203.0.113.1", 3478)
IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)


def test_the_ipv4_response_of_rfc_5769() -> None:
    message = read(IPV4)
    assert message is not None
    assert message.kind == SUCCESS
    assert mapped_address(message) == ("192.0.2.1", 32853)
    assert dict(message.attributes)[0x8022] == b"test vector"


def test_the_ipv6_address_of_rfc_5769() -> None:
    value = bytes.fromhex("0002a1470113a9faa5d3f179bc25f4b5bed2b9d9")
    transaction = bytes.fromhex("b7e7a701bc34d686fa87dfae")
    message = Message(SUCCESS, transaction, ((0x0020, value),))
    assert mapped_address(message) == ("2001:db8:1234:5678:11:2233:4455:6677", 32853)


def test_a_changed_octet_breaks_the_fingerprint() -> None:
    assert read(IPV4[:-1] + b"\0") is None
    assert read(IPV4.replace(b"test", b"best")) is None


@pytest.mark.parametrize("source", [("192.0.2.7", 61000), ("2001:db8::7", 1)])
def test_our_server_tells_our_client_where_it_comes_from(source: tuple[str, int]) -> None:
    machine = Binding(SERVER, pseudo.Random(5).randbytes)
    (ask,) = machine.start(10.0)
    assert isinstance(ask, SendNat)
    assert ask.to == SERVER
    reply = answer(ask.data, source)
    assert reply is not None
    assert machine.receive(reply, SERVER, 10.25) == [Seen(SERVER, source, 0.25)]
    assert machine.next_timer() is None
    assert machine.receive(reply, SERVER, 10.5) == []  # a duplicate


def test_the_old_attribute_of_rfc_3489_is_understood() -> None:
    value = bytes.fromhex("0001" "ee48" "c0000207")  # fmt: skip
    assert mapped_address(Message(SUCCESS, bytes(12), ((1, value),))) == ("192.0.2.7", 61000)


def test_retransmission_is_that_of_section_6_2_1() -> None:
    machine = Binding(SERVER, pseudo.Random(5).randbytes)
    machine.start(0.0)
    times, end = [0.0], None
    while end is None:
        due = machine.next_timer()
        assert due is not None
        (out,) = machine.advance(due)
        if isinstance(out, NotSeen):
            end = due
        else:
            times.append(due)
    assert times == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert end == 39.5


def test_answers_of_strangers_are_dropped() -> None:
    machine = Binding(SERVER, pseudo.Random(5).randbytes)
    (ask,) = machine.start(0.0)
    assert isinstance(ask, SendNat)
    reply = answer(ask.data, ("192.0.2.7", 61000))
    assert reply is not None
    assert machine.receive(reply, ("203.0.113.1", 3479), 0.1) == []
    other = Binding(SERVER, pseudo.Random(6).randbytes)
    (stranger,) = other.start(0.0)
    assert isinstance(stranger, SendNat)
    wrong = answer(stranger.data, ("192.0.2.7", 61000))
    assert wrong is not None
    assert machine.receive(wrong, SERVER, 0.1) == []
    assert machine.receive(ask.data, SERVER, 0.1) == []  # our own question, reflected


def test_a_request_with_a_demand_that_we_do_not_know_is_answered_420() -> None:
    asked = Message(REQUEST, bytes(12), ((0x0027, bytes(4)),)).pack()
    message = read(answer(asked, ("192.0.2.7", 1)) or b"")
    assert message is not None
    assert message.kind == ERROR
    found = dict(message.attributes)
    assert found[0x0009][2:4] == b"\x04\x14"
    assert found[0x000A] == b"\0\x27"


@pytest.mark.parametrize(
    ("flags", "changes_port", "granted"),
    [(0, False, True), (2, True, True), (2, False, False), (4, True, False), (6, True, False)],
)
def test_a_server_changes_its_port_if_it_has_two_and_never_its_address(
    flags: int, changes_port: bool, granted: bool
) -> None:
    asked = Message(REQUEST, bytes(12), ((0x0003, flags.to_bytes(4)),)).pack()
    message = read(answer(asked, ("192.0.2.7", 1), changes_port=changes_port) or b"")
    assert message is not None
    assert message.kind == (SUCCESS if granted else ERROR)
    assert wants_other_port(asked) is bool(flags & 2)
    assert granted or dict(message.attributes)[0x000A] == b"\0\3"


def test_a_question_says_whether_another_port_shall_answer() -> None:
    assert wants_other_port(ask(bytes(12), change_port=True))
    assert not wants_other_port(ask(bytes(12)))
    assert not wants_other_port(b"no STUN at all")


@pytest.mark.parametrize("kind", [0x0011, SUCCESS, ERROR, 0x0003])
def test_the_server_answers_requests_only(kind: int) -> None:
    assert answer(Message(kind, bytes(12)).pack(), ("192.0.2.7", 1)) is None


def test_on_the_tunnels_port_it_is_told_from_esp_and_ike() -> None:
    assert is_stun(Message(REQUEST, bytes(12)).pack())
    assert not is_stun(bytes(4) + b"\x21\x12\xa4\x42" + bytes(28)[:0])  # too short
    assert not is_stun(b"\0\1\0\0" + b"\0\0\0\1" + bytes(40))  # an SPI that begins like a request
    assert not is_stun(bytes(4) + bytes(28))  # the non-ESP marker
    assert not is_stun(b"\xff")
