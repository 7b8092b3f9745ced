"""The TLVs of DNS Push, octet for octet (RFC 8765 §6)."""

from __future__ import annotations

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import push, rcodes
from discovery.dso import DsoError, DsoMessage, Tlv
from discovery.push import Change, Reconfirm, Subscribe, Unsubscribe

AAAA = int(dns.rdatatype.AAAA)
SRV = int(dns.rdatatype.SRV)
DESK = dns.name.from_text("desk.alice.example.")


def rdata(kind: str, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), text)


ADDRESS = rdata("AAAA", "fd00::1")
ADDED = Change(DESK, AAAA, 1, 120, ADDRESS)

labels = st.binary(min_size=1, max_size=12)
names = st.lists(labels, max_size=6).map(lambda found: dns.name.Name([*found, b""]))
rdatas = st.one_of(
    st.binary(min_size=16, max_size=16).map(
        lambda octets: dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.AAAA, octets, 0, 16)
    ),
    names.map(lambda name: rdata("PTR", name.to_text())),
    names.map(lambda name: rdata("SRV", f"0 0 4500 {name.to_text()}")),
)
changes = st.one_of(
    st.builds(
        lambda name, data, ttl: Change(name, int(data.rdtype), 1, ttl, data),
        names,
        rdatas,
        st.one_of(st.integers(0, push.MAXIMUM_TTL), st.just(push.REMOVE_ONE)),
    ),
    st.builds(
        Change,
        names,
        st.sampled_from([0, 28, 255]),
        st.sampled_from([1, 255]),
        st.just(push.REMOVE_ALL),
        st.none(),
    ),
)


def test_subscribe_and_unsubscribe() -> None:
    tlv = Subscribe(DESK, SRV).tlv()
    assert tlv.pack().hex() == "00400018" + DESK.to_digestable().hex() + "00210001"
    assert Subscribe.parse(tlv.data) == Subscribe(DESK, SRV)
    assert Unsubscribe(0x1234).tlv().pack().hex() == "00420002" + "1234"
    assert Unsubscribe.parse(b"\x12\x34") == Unsubscribe(0x1234)


def test_a_push_adds_and_removes_with_compressed_names() -> None:
    (wire,) = push.push_messages(
        [
            ADDED,
            Change(DESK, AAAA, 1, push.REMOVE_ONE, ADDRESS),
            Change(DESK, 33, 1, 2**32 - 2, None),
        ]
    )
    record = "fd000000000000000000000000000001"
    expected = (
        "0000" "3000" "0000000000000000" "0041" "0056"
        + DESK.to_digestable().hex() + "001c0001" "00000078" "0010" + record
        + "c010" "001c0001" "ffffffff" "0010" + record
        + "c010" "00210001" "fffffffe" "0000"
    )  # fmt: skip
    assert wire.hex() == expected
    assert [change.ttl for change in push.parse_push(wire)] == [120, 2**32 - 1, 2**32 - 2]


@given(names, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_subscription_is_read_again(name: dns.name.Name, rdtype: int, rdclass: int) -> None:
    wanted = Subscribe(name, rdtype, rdclass)
    assert Subscribe.parse(wanted.tlv().data) == wanted


@given(st.lists(changes, min_size=1, max_size=12))
def test_changes_are_read_again(told: list[Change]) -> None:
    wires = push.push_messages(told)
    assert [change for wire in wires for change in push.parse_push(wire)] == told


@given(names, rdatas)
def test_a_doubt_is_read_again(name: dns.name.Name, data: dns.rdata.Rdata) -> None:
    doubt = Reconfirm(name, int(data.rdtype), 1, data)
    assert Reconfirm.parse(DsoMessage(0, (doubt.tlv(),)).pack()) == doubt


def test_many_changes_take_several_messages_of_lawful_size() -> None:
    told = [
        Change(DESK, 16, 1, 60, rdata("TXT", f'"{number:04d}{"x" * 200}"')) for number in range(300)
    ]
    wires = push.push_messages(told)
    assert len(wires) > 3
    assert all(len(wire) <= push.MAXIMUM_PUSH for wire in wires)
    assert [change for wire in wires for change in push.parse_push(wire)] == told
    assert push.push_messages([]) == []


def test_a_ttl_without_meaning_is_passed_over() -> None:
    (wire,) = push.push_messages([Change(DESK, AAAA, 1, 0x80000000, ADDRESS), ADDED])
    assert push.parse_push(wire) == (ADDED,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes.fromhex("00 001c 0001 fffffffe 0001 00"),
        bytes.fromhex("00 00ff 0001 0000003c 0000"),
        bytes.fromhex("00 001c 00ff ffffffff 0000"),
        bytes.fromhex("00 001c 0001 0000003c 0010 00"),
        bytes.fromhex("ff"),
    ],
    ids=["empty", "collective with data", "type ANY", "class ANY", "cut off", "no name"],
)
def test_a_client_aborts_for(data: bytes) -> None:
    with pytest.raises(DsoError):
        push.parse_push(DsoMessage(0, (Tlv(push.PUSH, data),)).pack())


def test_a_push_that_is_too_long_is_fatal() -> None:
    changes = b"".join(bytes.fromhex("00 001c 0001 fffffffe 0000") for _ in range(1600))
    with pytest.raises(DsoError):
        push.parse_push(DsoMessage(0, (Tlv(push.PUSH, changes),)).pack())


def test_retry_delays_are_those_that_the_rfc_recommends() -> None:
    minutes = {rcode: push.retry_delay_ms(rcode) // 60_000 for rcode in (1, 2, 4, 5, 9, 11, 15)}
    assert minutes == {1: 5, 2: 1, 4: 60, 5: 5, 9: 5, 11: 60, 15: 5}
    assert rcodes.DSOTYPENI == 11


@pytest.mark.parametrize(
    "data", [b"", DESK.to_digestable(), DESK.to_digestable() + bytes(5), b"\xc0\x0c1234"]
)
def test_a_subscription_holds_one_name_type_and_class(data: bytes) -> None:
    with pytest.raises(DsoError):
        Subscribe.parse(data)
