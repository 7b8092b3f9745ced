"""TSIG against the fact sheet's vectors, dnspython, and RFC 8945's table of errors."""

from __future__ import annotations

import struct

import dns.message
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import tsig
from discovery.tsig import NoTsig, TsigFailure, Verified, sign, verify
from discovery.types import TsigKey

NOW = 1700000000
KEY = TsigKey("alice-key.alice.example.", bytes(range(32)))

# Birthplace: the project's DNS fact sheet §5, computed there with an independent implementation.
UPDATE = bytes.fromhex(
    "12342800000100000001000105616c696365076578616d706c650000060001056d796d616305616c696365076578"
    "616d706c6500001c0001000000780010fd01020304050607002269fffe8e342a0000290" + "4d0000000000008"
    "0002000400001518"
)
UPDATE_MAC = bytes.fromhex("692fbd0e5877d6d235d909f34440051917a735c7befbe159d60c89eca06e1573")
UPDATE_TSIG = (
    bytes.fromhex(
        "09616c6963652d6b657905616c696365076578616d706c650000fa00ff00000000003d"
        "0b686d61632d7368613235360000006553f100012c0020"
    )
    + UPDATE_MAC
    + bytes.fromhex("123400000000")
)
RESPONSE = (
    bytes.fromhex("1234a800000100000000000105616c696365076578616d706c650000060001")
    + UPDATE[-19:]  # the same OPT
)
RESPONSE_MAC = bytes.fromhex("bf4cad4bb02b55eea6b18ea8c760a65a67e1aec57c6982109d22cb15fdf60f4e")


def finder(key: TsigKey = KEY) -> tsig.KeyFinder:
    def find(name: str, algorithm: str) -> TsigKey | None:
        known = name == tsig.canonical_name(key.name)
        return key if known and algorithm == tsig.canonical_algorithm(key.algorithm) else None

    return find


def truncated(wire: bytes, full: int, length: int) -> bytes:
    """Cut the MAC of a signed message (whose Other Data are empty) to ``length`` octets."""
    mac_at = len(wire) - 6 - full
    rdlength_at = mac_at - 10 - len(b"\x0bhmac-sha256\x00") - 2
    rdlength = int.from_bytes(wire[rdlength_at : rdlength_at + 2]) - full + length
    head = wire[:rdlength_at] + rdlength.to_bytes(2) + wire[rdlength_at + 2 : mac_at - 2]
    return head + length.to_bytes(2) + wire[mac_at : mac_at + length] + wire[-6:]


def test_known_answer_of_a_signed_update() -> None:
    wire, mac = sign(UPDATE, KEY, NOW)
    assert mac == UPDATE_MAC
    assert wire == UPDATE[:10] + b"\x00\x02" + UPDATE[12:] + UPDATE_TSIG
    assert len(wire) - len(UPDATE) == tsig.overhead(KEY)


def test_known_answer_of_its_response_with_the_request_mac() -> None:
    wire, mac = sign(RESPONSE, KEY, NOW, request_mac=UPDATE_MAC)
    assert mac == RESPONSE_MAC
    verdict = verify(wire, finder(), NOW, request_mac=UPDATE_MAC)
    assert isinstance(verdict, Verified)
    assert verdict.message == RESPONSE
    assert verdict.mac == RESPONSE_MAC


def test_a_response_to_another_request_is_badsig() -> None:
    wire, _ = sign(RESPONSE, KEY, NOW, request_mac=UPDATE_MAC)
    other = verify(wire, finder(), NOW, request_mac=bytes(32))
    assert isinstance(other, TsigFailure)
    assert (other.rcode, other.error) == (tsig.NOTAUTH, tsig.BADSIG)


def test_key_names_compare_without_case() -> None:
    shouting = TsigKey("ALICE-Key.Alice.EXAMPLE", KEY.secret, "HMAC-SHA256.")
    wire, mac = sign(UPDATE, shouting, NOW)
    assert mac == UPDATE_MAC
    upper_on_wire = wire.replace(b"\x09alice-key", b"\x09ALICE-KEY")
    assert upper_on_wire != wire
    assert isinstance(verify(upper_on_wire, finder(), NOW), Verified)


def test_a_compressed_key_name_is_read_and_digested_uncompressed() -> None:
    wire, _ = sign(UPDATE, KEY, NOW)
    whole_name = b"\x09alice-key\x05alice\x07example\x00"
    compressed = wire.replace(whole_name, b"\x09alice-key\xc0\x0c", 1)
    assert isinstance(verify(compressed, finder(), NOW), Verified)


@pytest.mark.parametrize("algorithm", sorted(tsig._ALGORITHMS))
def test_dnspython_accepts_every_algorithm_that_we_sign(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    wire, _ = sign(UPDATE, TsigKey(KEY.name, KEY.secret, algorithm), NOW)
    ring = {dns.name.from_text(KEY.name): dns.tsig.Key(KEY.name, KEY.secret, algorithm)}
    assert dns.message.from_wire(wire, keyring=ring).had_tsig


@pytest.mark.parametrize("algorithm", sorted(tsig._ALGORITHMS))
def test_we_accept_every_algorithm_that_dnspython_signs(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    query = dns.message.make_query("desk.alice.example", "AAAA")
    query.use_tsig(dns.tsig.Key(KEY.name, KEY.secret, algorithm))
    key = TsigKey(KEY.name, KEY.secret, algorithm)
    assert isinstance(verify(query.to_wire(), finder(key), NOW), Verified)


@pytest.mark.parametrize(
    ("length", "rcode", "error"),
    [
        (9, tsig.FORMERR, 0),
        (10, tsig.FORMERR, 0),  # half of the 32 octet hash is more
        (15, tsig.FORMERR, 0),
        (33, tsig.FORMERR, 0),
    ],
)
def test_unlawful_mac_lengths_are_formerr(length: int, rcode: int, error: int) -> None:
    wire, _ = sign(UPDATE, KEY, NOW)
    if length > 32:
        wire = wire[:-6] + bytes(1) + wire[-6:]
        wire = wire.replace(b"\x00\x3d\x0bhmac", b"\x00\x3e\x0bhmac").replace(
            b"\x01\x2c\x00\x20", b"\x01\x2c\x00\x21"
        )
    else:
        wire = truncated(wire, 32, length)
    verdict = verify(wire, finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert (verdict.rcode, verdict.error) == (rcode, error)


def test_a_mac_cut_to_sixteen_octets_is_accepted_and_remembered_as_cut() -> None:
    wire, mac = sign(UPDATE, KEY, NOW)
    verdict = verify(truncated(wire, 32, 16), finder(), NOW)
    assert isinstance(verdict, Verified)
    assert verdict.mac == mac[:16]


def test_a_cut_below_the_policy_is_badtrunc_and_the_answer_is_signed() -> None:
    wire, mac = sign(UPDATE, KEY, NOW)
    verdict = verify(truncated(wire, 32, 20), finder(), NOW, minimum_mac=32)
    assert isinstance(verdict, TsigFailure)
    assert (verdict.rcode, verdict.error) == (tsig.NOTAUTH, tsig.BADTRUNC)
    answer = tsig.attach_error(RESPONSE, verdict, NOW)
    told = verify(answer, finder(), NOW, request_mac=mac[:20])
    assert isinstance(told, Verified)
    assert told.record.error == tsig.BADTRUNC


def test_an_unknown_key_is_badkey_and_the_answer_is_unsigned() -> None:
    stranger = TsigKey("stranger.alice.example.", bytes(32))
    wire, mac = sign(UPDATE, stranger, NOW)
    verdict = verify(wire, finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert (verdict.rcode, verdict.error, verdict.key) == (tsig.NOTAUTH, tsig.BADKEY, None)
    told = verify(tsig.attach_error(RESPONSE, verdict, NOW), finder(stranger), NOW, request_mac=mac)
    assert isinstance(told, TsigFailure)
    assert (told.error, told.from_peer) == (tsig.BADKEY, True)
    assert told.record is not None
    assert told.record.mac == b""


def test_an_unknown_algorithm_is_badkey() -> None:
    wire, _ = sign(UPDATE, KEY, NOW)
    verdict = verify(wire.replace(b"\x0bhmac-sha256", b"\x0bhmac-sha999"), finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert verdict.error == tsig.BADKEY


def test_a_wrong_secret_is_badsig() -> None:
    wire, _ = sign(UPDATE, TsigKey(KEY.name, bytes(32)), NOW)
    verdict = verify(wire, finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert (verdict.rcode, verdict.error, verdict.key) == (tsig.NOTAUTH, tsig.BADSIG, None)


@pytest.mark.parametrize(("skew", "good"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_the_fudge_is_exact(skew: int, good: bool) -> None:
    wire, _ = sign(UPDATE, KEY, NOW + skew)
    verdict = verify(wire, finder(), NOW)
    assert isinstance(verdict, Verified) is good


def test_badtime_is_answered_signed_with_the_clients_time_and_the_servers_clock() -> None:
    wire, mac = sign(UPDATE, KEY, NOW + 4000)
    verdict = verify(wire, finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert verdict.error == tsig.BADTIME
    told = verify(tsig.attach_error(RESPONSE, verdict, NOW), finder(), NOW + 4000, request_mac=mac)
    assert isinstance(told, Verified)
    assert told.record.error == tsig.BADTIME
    assert told.record.time_signed == NOW + 4000
    assert told.server_time == NOW


def test_badtime_is_only_told_to_who_holds_the_key() -> None:
    wire, _ = sign(UPDATE, TsigKey(KEY.name, bytes(32)), NOW + 4000)
    verdict = verify(wire, finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert verdict.error == tsig.BADSIG  # MAC before time, RFC 8945 §5.2


def test_a_tsig_that_is_not_last_is_formerr() -> None:
    tsig_before_opt = UPDATE[:10] + b"\x00\x02" + UPDATE[12:-19] + UPDATE_TSIG + UPDATE[-19:]
    verdict = verify(tsig_before_opt, finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert (verdict.rcode, verdict.error) == (tsig.FORMERR, 0)
    assert tsig.attach_error(RESPONSE, verdict, NOW) == RESPONSE


def test_two_tsig_records_are_formerr() -> None:
    once, _ = sign(UPDATE, KEY, NOW)
    twice, _ = sign(once, KEY, NOW)
    assert isinstance(verify(twice, finder(), NOW), TsigFailure)


def test_a_tsig_in_another_section_is_formerr() -> None:
    wire, _ = sign(UPDATE[:-19], KEY, NOW)  # without the OPT: TSIG would be in authority
    counts = struct.pack("!HHHH", 1, 0, 2, 0)
    verdict = verify(wire[:4] + counts + wire[12:], finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert verdict.rcode == tsig.FORMERR


@pytest.mark.parametrize("change", [b"\x00\xfa\x00\x01", b"\x00\xfa\x00\xfe"])
def test_a_tsig_of_another_class_is_formerr(change: bytes) -> None:
    wire, _ = sign(UPDATE, KEY, NOW)
    verdict = verify(wire.replace(b"\x00\xfa\x00\xff", change), finder(), NOW)
    assert isinstance(verdict, TsigFailure)
    assert verdict.rcode == tsig.FORMERR


def test_octets_after_the_tsig_are_formerr() -> None:
    wire, _ = sign(UPDATE, KEY, NOW)
    assert isinstance(verify(wire + b"\x00", finder(), NOW), TsigFailure)


def test_no_tsig_is_its_own_verdict() -> None:
    assert isinstance(verify(UPDATE, finder(), NOW), NoTsig)


def test_a_forwarded_message_is_digested_with_its_original_id() -> None:
    wire, mac = sign(b"\x99\x99" + UPDATE[2:], KEY, NOW, original_id=0x1234)
    assert mac == UPDATE_MAC
    assert isinstance(verify(wire, finder(), NOW), Verified)


@given(bit=st.integers(0, (len(UPDATE) + len(UPDATE_TSIG)) * 8 - 1))
def test_any_flipped_bit_is_noticed(bit: int) -> None:
    wire = bytearray(sign(UPDATE, KEY, NOW)[0])
    wire[bit // 8] ^= 1 << bit % 8
    verdict = verify(bytes(wire), finder(), NOW)
    # The header ID is not authenticated (the Original ID is), nor is the case of names.
    if isinstance(verdict, Verified):
        assert bit < 16 or (bit % 8 == 5 and chr(wire[bit // 8]).isalpha())


@given(
    secret=st.binary(min_size=1, max_size=100),
    body=st.binary(max_size=64),
    algorithm=st.sampled_from(sorted(tsig._ALGORITHMS)),
    request_mac=st.binary(max_size=64),
)
def test_what_is_signed_verifies(
    secret: bytes, body: bytes, algorithm: str, request_mac: bytes
) -> None:
    question = b"\x04desk\x00\x00\x10\x00\x01"
    record = b"\x00\x00\x10\x00\x01" + bytes(4) + len(body).to_bytes(2) + body
    wire = struct.pack("!HHHHHH", 7, 0x8000, 1, 1, 0, 0) + question + record
    key = TsigKey("k.example.", secret, algorithm)
    signed, mac = sign(wire, key, NOW, request_mac=request_mac)
    verdict = verify(signed, finder(key), NOW, request_mac=request_mac)
    assert isinstance(verdict, Verified)
    assert (verdict.message, verdict.mac) == (wire, mac)
