"""The LLQ option, octet for octet (RFC 8764 §3.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import llq
from discovery.llq import LlqFormatError, LlqOption

options = st.builds(
    LlqOption,
    opcode=st.integers(0, 0xFFFF),
    error=st.integers(0, 0xFFFF),
    id=st.integers(0, 2**64 - 1),
    lease=st.integers(0, 2**32 - 1),
    version=st.integers(0, 0xFFFF),
)


def test_the_setup_request_of_the_fact_sheet() -> None:
    known = bytes.fromhex("0001 0012 0001 0001 0000 0000000000000000 00001c20")
    assert llq.pack_options([LlqOption(llq.SETUP, lease=7200)]) == known


def test_an_event_names_its_query() -> None:
    option = LlqOption(llq.EVENT, id=0x0102030405060708)
    assert option.pack().hex() == "000100030000" + "0102030405060708" + "00000000"


@given(options)
def test_what_is_packed_is_read_again(option: LlqOption) -> None:
    assert LlqOption.parse(option.pack()) == option


@given(st.binary(max_size=64))
def test_only_eighteen_octets_are_an_option(data: bytes) -> None:
    if len(data) == llq.OPTION_SIZE:
        assert LlqOption.parse(data).pack() == data
    else:
        with pytest.raises(LlqFormatError):
            LlqOption.parse(data)
