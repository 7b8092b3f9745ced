"""TSIG on one answer in many messages (RFC 8945 §5.3.1), with dnspython's as the other side."""

from __future__ import annotations

import time
from collections.abc import Iterable

import dns.message
import dns.tsig
import pytest

from discovery import tsig
from discovery.tsig import TsigFailure
from discovery.tsig_stream import MAX_UNSIGNED, StreamSigner, StreamVerifier
from discovery.types import TsigKey
from tests.fuzz.mutate import mutants

UNIX = 1_700_000_000
REQUEST_MAC = bytes(range(32))
ALGORITHMS = ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512", tsig.HMAC_MD5)


def key_for(algorithm: str = "hmac-sha256") -> TsigKey:
    return TsigKey("alice.example.", bytes(range(32)), algorithm)


def message(number: int) -> bytes:
    """An answer without sections; the flags tell it from its neighbours."""
    return b"\x12\x34\x84" + bytes((number % 16,)) + bytes(8)


def signed(numbers: Iterable[int], unsigned: Iterable[int] = (), unix: int = UNIX) -> list[bytes]:
    """A stream in which some messages carry no signature, as some servers send it."""
    signer = StreamSigner(key_for(), REQUEST_MAC)
    pending, wires = b"", []
    for number in numbers:
        if number in unsigned:
            wires.append(message(number))
            pending += message(number)
            continue
        if pending:  # what the signer would digest, had it left the signatures out
            record_mac = _mac_over(signer._mac, pending + message(number), unix)
            record = tsig.TsigRecord(
                "alice.example.", "hmac-sha256", unix, 300, b"", 0x1234, 0, b""
            )
            wires.append(tsig.append(message(number), record, record_mac))
            signer._mac, pending = record_mac, b""
        else:
            wires.append(signer.sign(message(number), unix))
    return wires


def _mac_over(prior: bytes, octets: bytes, unix: int) -> bytes:
    timers = unix.to_bytes(6) + (300).to_bytes(2)
    return tsig.digest(key_for(), len(prior).to_bytes(2) + prior + octets + timers)


def verified(wires: Iterable[bytes], unix: int = UNIX) -> list[bytes] | TsigFailure:
    verifier = StreamVerifier(key_for(), REQUEST_MAC)
    found = []
    for wire in wires:
        one = verifier.take(wire, unix)
        if isinstance(one, TsigFailure):
            return one
        found.append(one)
    return verifier.end() or found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_dnspython_verifies_our_stream(algorithm: str) -> None:
    key, unix = key_for(algorithm), int(time.time())
    other = dns.tsig.Key(key.name, key.secret, algorithm)
    signer = StreamSigner(key, REQUEST_MAC)
    context = None
    for number in range(5):
        wire = signer.sign(message(number), unix)
        read = dns.message.from_wire(
            wire, keyring=other, request_mac=REQUEST_MAC, multi=True, tsig_ctx=context
        )
        context = read.tsig_ctx
        assert read.had_tsig


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_we_verify_dnspythons_stream(algorithm: str) -> None:
    key, unix = key_for(algorithm), int(time.time())
    verifier = StreamVerifier(key, REQUEST_MAC)
    context = None
    for number in range(5):
        made = dns.message.from_wire(message(number))
        made.use_tsig(dns.tsig.Key(key.name, key.secret, algorithm))
        made.request_mac = REQUEST_MAC
        wire = made.to_wire(multi=True, tsig_ctx=context)
        context = made.tsig_ctx
        assert verifier.take(wire, unix) == message(number)
    assert verifier.end() is None


def test_up_to_99_messages_between_may_be_unsigned() -> None:
    between = range(1, MAX_UNSIGNED + 1)
    wires = signed(range(MAX_UNSIGNED + 2), between)
    assert verified(wires) == [message(n) for n in range(MAX_UNSIGNED + 2)]
    too_many = signed(range(MAX_UNSIGNED + 3), range(1, MAX_UNSIGNED + 2))
    failure = verified(too_many)
    assert isinstance(failure, TsigFailure)
    assert "in a row" in failure.reason


def test_the_first_and_the_last_must_be_signed() -> None:
    wires = signed(range(4))
    for broken in ([message(0), *wires[1:]], [*wires[:3], message(3)], []):
        failure = verified(broken)
        assert isinstance(failure, TsigFailure)
        assert "no signature" in failure.reason


@pytest.mark.parametrize("harm", ["left out", "put in", "swapped", "changed", "cut off", "other"])
def test_no_message_can_be_taken_out_put_in_or_moved(harm: str) -> None:
    wires = signed(range(5))
    harmed = {
        "left out": [*wires[:2], *wires[3:]],
        "put in": [*wires[:2], message(9), *wires[2:]],
        "swapped": [wires[0], wires[2], wires[1], *wires[3:]],
        "changed": [*wires[:3], wires[3][:3] + b"\x09" + wires[3][4:], wires[4]],
        "cut off": [*wires[:3], wires[3][:-1]],
        "other": [*wires[:2], *signed(range(9), unix=UNIX + 1)[2:]],
    }[harm]
    assert isinstance(verified(harmed), TsigFailure)


def test_a_stream_of_another_request_key_or_time_is_not_accepted() -> None:
    wires = signed(range(3))
    other = StreamVerifier(key_for(), bytes(32))
    assert isinstance(other.take(wires[0], UNIX), TsigFailure)
    late = verified(wires, UNIX + 301)
    assert isinstance(late, TsigFailure)
    assert late.error == tsig.BADTIME
    verifier = StreamVerifier(key_for(), REQUEST_MAC)
    verifier.take(wires[0], UNIX)
    later = verifier.take(wires[1], UNIX + 301)
    assert isinstance(later, TsigFailure)
    assert later.error == tsig.BADTIME
    stranger = tsig.sign(message(1), TsigKey("bob.example.", bytes(32)), UNIX)[0]
    verifier = StreamVerifier(key_for(), REQUEST_MAC)
    verifier.take(wires[0], UNIX)
    foreign = verifier.take(stranger, UNIX)
    assert isinstance(foreign, TsigFailure)
    assert foreign.error == tsig.BADKEY


def test_mutants_of_a_stream_are_never_believed() -> None:
    wires = signed(range(2))
    for mutant in mutants(wires[1:], 20_000):
        verifier = StreamVerifier(key_for(), REQUEST_MAC)
        verifier.take(wires[0], UNIX)
        taken = verifier.take(mutant, UNIX)
        # Not digested are the ID (the Original ID is) and TSIG's Error and Other Data.
        assert (
            isinstance(taken, TsigFailure)
            or verifier.end() is not None
            or taken[2:] == message(1)[2:]
        ), mutant.hex()
