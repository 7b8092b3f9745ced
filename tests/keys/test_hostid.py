"""Host ids and target labels (B16, B49-B56) with the known answers of the fact sheet."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import hostid

MAC = bytes.fromhex("0022698e342a")
EUI64 = bytes.fromhex("002269fffe8e342a")
RANDOM7 = bytes(range(1, 8))


def test_b56_the_eui64_of_a_mac_keeps_its_ul_bit() -> None:
    assert hostid.eui64_from_mac(MAC) == EUI64


def test_b53_known_answer_of_a_host_id() -> None:
    assert str(hostid.host_id(EUI64, RANDOM7)) == "fd01:203:405:607:22:69ff:fe8e:342a"


def test_b16_known_answer_of_a_target_label() -> None:
    label = hostid.target_label(EUI64)
    assert label == "AutoTunnel-00-22-69-FF-FE-8E-34-2A"
    assert len(label) == 34


def test_b56_label_and_host_id_use_the_same_eight_octets() -> None:
    address = hostid.generate(MAC, lambda size: bytes(range(size)))
    assert hostid.target_label(hostid.eui64_of(address)) == hostid.target_label(EUI64)


@pytest.mark.parametrize("mac", [b"", MAC[:5], MAC + b"\x00", bytes(6), b"\x01" + MAC[1:]])
def test_a_mac_that_is_none_is_refused(mac: bytes) -> None:
    with pytest.raises(ValueError, match="MAC"):
        hostid.eui64_from_mac(mac)


def test_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match="7 random octets"):
        hostid.host_id(EUI64, RANDOM7[:6])
    with pytest.raises(ValueError, match="8 octets"):
        hostid.target_label(EUI64[:7])


@given(st.binary(min_size=15, max_size=15))
def test_b55_every_host_id_is_a_ula_with_l_set(entropy: bytes) -> None:
    def random(size: int) -> bytes:
        return entropy[:size]

    assert hostid.generate(None, random) in IPv6Network("fd00::/8")
    assert hostid.generate(MAC, random).packed == b"\xfd" + entropy[:7] + EUI64


@given(st.binary(min_size=8, max_size=8))
def test_a_random_eui64_is_never_that_of_an_interface(entropy: bytes) -> None:
    made = hostid.random_eui64(lambda size: entropy[:size])
    assert made[0] & 3 == 2  # locally administered, individual
    assert made[1:] == entropy[1:]


def test_eui64_of_is_the_low_half() -> None:
    assert hostid.eui64_of(IPv6Address("fd00::1:2:3:4")) == bytes.fromhex("0001000200030004")
