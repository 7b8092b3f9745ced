"""Host identifiers: the ULA of RFC 6281 §6.3 and the target label of its §3 (B16, B49-B56).

Octet 0 is 0xFD, octets 1-7 are random, octets 8-15 are an EUI-64. The U/L bit of the EUI-64 is not
inverted, as RFC 6281 prints it (``AutoTunnel-00-22-69-…``); RFC 4291 identifiers would invert it.
Peers are compared by what they published only, so that hosts that invert it work as well.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

ULA_FIRST_OCTET: Final = 0xFD  # FC00::/7 with L = 1, RFC 4193 §3.1
RANDOM_OCTETS: Final = 7  # RFC 6281 §6.3: Global ID (5) and Subnet ID (2), all random
EUI64_SIZE: Final = 8  # octets
MAC_SIZE: Final = 6  # octets
TARGET_PREFIX: Final = "AutoTunnel"

_GROUP_BIT: Final = 0x01
_LOCAL_BIT: Final = 0x02


def eui64_from_mac(mac: bytes) -> bytes:
    """Return the EUI-64 (8 octets) of a 48-bit MAC address: FF FE in the middle, no bit flipped.

    B56. Raises ValueError unless ``mac`` is 6 octets of a single interface's address.
    """
    if len(mac) != MAC_SIZE:
        raise ValueError(f"a MAC address has {MAC_SIZE} octets, not {len(mac)}")
    if mac[0] & _GROUP_BIT or not any(mac):
        raise ValueError("the MAC address is a group address or all zero")
    return mac[:3] + b"\xff\xfe" + mac[3:]


def random_eui64(random: Callable[[int], bytes]) -> bytes:
    """Return a random EUI-64, for hosts without a MAC or whose owner prefers privacy.

    It is marked as locally administered and individual (IEEE 802 U/L and I/G bits), so that it
    can never equal the EUI-64 of a real interface.
    """
    octets = bytearray(random(EUI64_SIZE))
    octets[0] = (octets[0] | _LOCAL_BIT) & ~_GROUP_BIT & 0xFF
    return bytes(octets)


def host_id(eui64: bytes, random7: bytes) -> IPv6Address:
    """Return the host id made of seven random octets and an EUI-64 (B53, B55).

    Raises ValueError for other lengths.
    """
    if len(eui64) != EUI64_SIZE or len(random7) != RANDOM_OCTETS:
        raise ValueError("a host id is made of 7 random octets and an EUI-64 of 8")
    return IPv6Address(bytes([ULA_FIRST_OCTET]) + random7 + eui64)


def generate(mac: bytes | None, random: Callable[[int], bytes]) -> IPv6Address:
    """Return a new host id: seven random octets, and the EUI-64 of ``mac`` or a random one."""
    eui64 = random_eui64(random) if mac is None else eui64_from_mac(mac)
    return host_id(eui64, random(RANDOM_OCTETS))


def eui64_of(address: IPv6Address) -> bytes:
    """Return the EUI-64 of a host id: its last eight octets (B56: the same in label and ULA)."""
    return address.packed[-EUI64_SIZE:]


def target_label(eui64: bytes) -> str:
    """Return the label ``AutoTunnel-<EUI64>``, 34 octets (B16). Raises ValueError."""
    if len(eui64) != EUI64_SIZE:
        raise ValueError(f"an EUI-64 has {EUI64_SIZE} octets, not {len(eui64)}")
    return "-".join([TARGET_PREFIX, *(f"{octet:02X}" for octet in eui64)])
