"""What Wireshark needs to open the packets between us and one peer: lines of its key tables.

Two tables of its configuration folder, one line for each SA that stands now; older keys are
forgotten, and none is kept for this. ``esp_sa`` (the inbound and the outbound half of a child)::

    "IPv4","*","*","0xSPI","AES-GCM with 16 octet ICV [RFC4106]","0xKEY||SALT","NULL",""

and ``ikev2_decryption_table``::

    SPIi,SPIr,SK_ei||SALT,SK_er||SALT,"AES-GCM-256 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"

Outer addresses are left open, since an SA is bound to host ids and may move. What Wireshark
cannot read is left out: a line that it does not understand makes it refuse the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from keys.ike.sa import IkeSa
from keys.ike.types import ChildSa

_ESP = {
    "aes128gcm16": "AES-GCM with 16 octet ICV [RFC4106]",
    "aes256gcm16": "AES-GCM with 16 octet ICV [RFC4106]",
}
_IKE = {
    "aes128gcm16": "AES-GCM-128 with 16 octet ICV [RFC5282]",
    "aes256gcm16": "AES-GCM-256 with 16 octet ICV [RFC5282]",
}
_OUTER = ("IPv4", "IPv6")


@dataclass(frozen=True, slots=True)
class WiresharkTables:
    """Lines of the two tables, and sentences about what they cannot show."""

    esp_sa: tuple[str, ...] = field(repr=False)
    ikev2_decryption_table: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...]


def wireshark_tables(sas: Iterable[IkeSa]) -> WiresharkTables:
    """The tables for these IKE SAs and their children; SAs without keys have no part in them."""
    esp: list[str] = []
    ike: list[str] = []
    notes: list[str] = []
    for sa in sas:
        if sa.keys is None:
            continue
        if sa.keys.suite in _IKE:
            ike.append(_ike_line(sa))
        else:
            notes.append(f"Wireshark has no {sa.keys.suite} for IKEv2: the IKE SA is left out")
        for child in (child.sa for child in sa.children.values()):
            if child.suite in _ESP:
                esp += _esp_lines(child)
            else:
                notes.append(
                    f"Wireshark has no {child.suite} for ESP: "
                    f"the SAs {child.spi_in:08x} and {child.spi_out:08x} are left out"
                )
            if child.esn:
                notes.append(
                    f"the SAs {child.spi_in:08x} and {child.spi_out:08x} have extended sequence "
                    "numbers: Wireshark before 4.2 decrypts them, but calls their ICV wrong"
                )
    return WiresharkTables(tuple(esp), tuple(ike), tuple(notes))


def _ike_line(sa: IkeSa) -> str:
    assert sa.keys is not None
    secrets = (sa.spi_i, sa.spi_r, sa.keys.ei, sa.keys.er)
    fields = [value.hex() for value in secrets]
    return ",".join([*fields, f'"{_IKE[sa.keys.suite]}"', "", "", '"NONE [RFC4306]"'])


def _esp_lines(child: ChildSa) -> list[str]:
    return [
        f'"{outer}","*","*","0x{spi:08x}","{_ESP[child.suite]}","0x{key.hex()}","NULL",""'
        for spi, key in ((child.spi_in, child.key_in), (child.spi_out, child.key_out))
        for outer in _OUTER
    ]
