"""DSO messages and their TLVs, octet for octet (RFC 8490 §5.4, §7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import dso, rcodes
from discovery.dso import DsoError, DsoMessage, Keepalive, RetryDelay, Tlv

KEEPALIVE = bytes.fromhex("0001 3000 0000 0000 0000 0000 0001 0008 00003a98 0036ee80")

tlvs = st.builds(Tlv, st.integers(0, 0xFFFF), st.binary(max_size=300))
messages = st.builds(
    DsoMessage,
    id=st.integers(0, 0xFFFF),
    tlvs=st.lists(tlvs, max_size=5).map(tuple),
    response=st.booleans(),
    rcode=st.integers(0, 15),
)


def test_a_keepalive_request() -> None:
    message = DsoMessage(1, (Keepalive(15_000, 3_600_000).tlv(),))
    assert message.pack() == KEEPALIVE
    assert DsoMessage.parse(KEEPALIVE) == message
    assert Keepalive.parse(message.tlvs[0].data) == Keepalive(15_000, 3_600_000)


def test_a_retry_delay_that_ends_a_session() -> None:
    message = DsoMessage(0, (RetryDelay(5000).tlv(),), rcode=rcodes.SERVFAIL)
    assert message.pack().hex() == "0000" + "3002" + "00" * 8 + "00020004" + "00001388"
    assert RetryDelay.parse(message.tlvs[0].data) == RetryDelay(5000)


def test_a_response_is_told_by_its_bit() -> None:
    message = DsoMessage(9, (), response=True, rcode=rcodes.DSOTYPENI)
    assert message.pack()[:4].hex() == "0009" + "b00b"
    assert DsoMessage.parse(message.pack()) == message


@given(st.integers(12, 4000), st.sampled_from([128, 468]))
def test_padding_brings_a_message_to_full_blocks(size: int, block: int) -> None:
    padding = dso.padding_for(size, block)
    assert (size + len(padding.pack())) % block == 0
    assert len(padding.pack()) < block + 4


@given(messages)
def test_what_is_packed_is_read_again(message: DsoMessage) -> None:
    assert DsoMessage.parse(message.pack()) == message


def test_the_z_bits_are_ignored() -> None:
    odd = KEEPALIVE[:2] + bytes([KEEPALIVE[2] | 0x07, 0xF0]) + KEEPALIVE[4:]
    assert DsoMessage.parse(odd) == DsoMessage.parse(KEEPALIVE)


@pytest.mark.parametrize(
    "wire",
    [
        KEEPALIVE[:11],
        KEEPALIVE[:2] + b"\x28\x00" + KEEPALIVE[4:],
        KEEPALIVE[:11] + b"\x01" + KEEPALIVE[12:],
        KEEPALIVE[:-1],
        KEEPALIVE + b"\x00",
    ],
)
def test_malformed_messages_raise(wire: bytes) -> None:
    with pytest.raises(DsoError):
        DsoMessage.parse(wire)


@pytest.mark.parametrize("data", [b"", bytes(3), bytes(7), bytes(9)])
def test_timeouts_have_their_size(data: bytes) -> None:
    with pytest.raises(DsoError):
        Keepalive.parse(data)
    with pytest.raises(DsoError):
        RetryDelay.parse(data)
