"""tshark as the judge of a capture: it dissects and decrypts all of it, or the test fails.

Independent code, given nothing but the keys that ``autotunnel keys export`` wrote, agrees with us
and with charon about every octet.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunnel.cli.keys import DECRYPT

_ENCRYPTED = {"46", "53"}  # SK and SKF (RFC 7296 §3.14, RFC 7383 §2.5)
_FIELDS = (
    *("ip.src", "frame.number", "_ws.malformed", "_ws.expert.message", "esp.spi", "esp.icv_good"),
    *("esp.icv_bad", "isakmp.exchangetype", "isakmp.typepayload", "isakmp.enc.decrypted"),
    *("isakmp.frag.number", "isakmp.frag.total", "isakmp.fragment.count", "isakmp.notify.msgtype"),
)
# Wireshark's words for a tag of IKEv2 that does not verify.
_WRONG_TAG = "Integrity Checksum Data is incorrect"


@dataclass(frozen=True, slots=True)
class Seen:
    """What tshark saw of one packet."""

    fields: dict[str, list[str]]

    def __getitem__(self, name: str) -> list[str]:
        return self.fields.get(name, [])

    @property
    def number(self) -> int:
        return int(self["frame.number"][0])

    @property
    def is_esp(self) -> bool:
        return bool(self["esp.spi"])

    @property
    def is_protected_ike(self) -> bool:
        return bool(_ENCRYPTED & set(self["isakmp.typepayload"]))

    @property
    def exchange(self) -> int | None:
        """The exchange type of an IKE message."""
        found = self["isakmp.exchangetype"]
        return int(found[0]) if found else None

    @property
    def is_malformed(self) -> bool:
        wrong = any(_WRONG_TAG in message for message in self["_ws.expert.message"])
        return wrong or bool(self["_ws.malformed"])

    @property
    def is_opened(self) -> bool:
        """Whether an ESP packet or a protected IKE message was decrypted, its tag verified."""
        if self.is_esp:
            return self["esp.icv_good"] == ["1"] and self["esp.icv_bad"] != ["1"]
        # tshark joins fragments where the last one comes, and decrypts each.
        return "isakmp.enc.decrypted" in self.fields


def dissect(pcap: Path, keys: Path) -> Iterator[Seen]:
    """Every packet of the capture, decrypted with the tables in the folder ``keys``."""
    # An ICMP error quotes the beginning of a packet, which tshark would take for a packet.
    command = ["tshark", "-r", str(pcap), "-Y", "not icmp", "-T", "json", *DECRYPT]
    command += [word for name in _FIELDS for word in ("-e", name)]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        timeout=180,
        env={**os.environ, "WIRESHARK_CONFIG_DIR": str(keys)},
    )
    for packet in json.loads(done.stdout):
        yield Seen(packet["_source"]["layers"])


def judge(pcap: Path, keys: Path, *, opens: bool) -> list[Seen]:
    """All packets; fails if one is malformed, and, with ``opens``, if one stays closed."""
    seen = list(dissect(pcap, keys))
    assert any(packet.exchange is not None for packet in seen), "no IKE was captured"
    malformed = [packet.fields for packet in seen if packet.is_malformed]
    assert not malformed, malformed[:3]
    closed = [
        packet.fields
        for packet in seen
        if (packet.is_esp or packet.is_protected_ike) and not packet.is_opened
    ]
    assert not opens or not closed, closed[:3]
    return seen
