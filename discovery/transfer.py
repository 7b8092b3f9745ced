"""Zone transfer (AXFR, RFC 5936) for the account itself: its way to take its zone elsewhere.

A transfer is one answer in several messages. The first is signed as any answer is; each later one
digests the MAC before it and, of the TSIG variables, only the timers (RFC 8945 §5.3.1).
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable, Iterator
from typing import Final

import dns.name

from discovery import message, tsig
from discovery.content import SOA, ZoneContent
from discovery.message import Reply, Request
from discovery.store import RecordSet
from discovery.types import TsigKey

CHUNK: Final = 16_000  # octets of records per message, counted without compression

_RECORD_FIXED: Final = 10  # octets: type, class, TTL, RDLENGTH
_HASHES: Final = {"hmac-sha256": "sha256", tsig.HMAC_MD5: "md5"}


def transfer(
    content: ZoneContent, request: Request, key: TsigKey, request_mac: bytes, unix: int
) -> list[bytes]:
    """Return the signed messages of a whole zone: SOA, everything else, SOA (RFC 5936 §2.2)."""
    wires: list[bytes] = []
    mac = b""
    for records in _chunks(_records(content)):
        reply = Reply(authoritative=True, answer=records)
        wire = message.render(request, reply, message.TCP_PAYLOAD - tsig.overhead(key))
        assert wire is not None  # a chunk is one record above CHUNK at most
        if not wires:
            wire, mac = tsig.sign(wire, key, unix, request_mac=request_mac)
        else:
            wire, mac = _sign_next(wire, key, unix, mac)
        wires.append(wire)
    return wires


def _records(content: ZoneContent) -> Iterator[RecordSet]:
    soa = content.get(content.origin, SOA)
    assert soa is not None
    yield soa
    for found in sorted(content.sets(), key=lambda found: (found.name, found.rdtype)):
        if found.rdtype == SOA:
            continue
        for item in found.items:
            yield RecordSet(found.name, found.rdtype, found.ttl, (item,))
    yield soa


def _chunks(records: Iterable[RecordSet]) -> Iterator[list[RecordSet]]:
    chunk: list[RecordSet] = []
    size = 0
    for record in records:
        if size > CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        octets = sum(map(len, record.name.labels)) + len(record.name.labels)
        size += octets + _RECORD_FIXED + len(record.items[0].canonical)
    yield chunk


def _sign_next(wire: bytes, key: TsigKey, unix: int, prior_mac: bytes) -> tuple[bytes, bytes]:
    timers = unix.to_bytes(6) + tsig.DEFAULT_FUDGE.to_bytes(2)
    digested = len(prior_mac).to_bytes(2) + prior_mac + wire + timers
    mac = hmac.digest(key.secret, digested, _HASHES[key.algorithm])
    rdata = b"".join(
        (
            dns.name.from_text(key.algorithm).to_digestable(),
            timers,
            struct.pack("!H", len(mac)),
            mac,
            wire[:2],
            struct.pack("!HH", 0, 0),
        )
    )
    owner = dns.name.from_text(key.name).to_digestable()
    head = owner + struct.pack("!HHIH", tsig.TSIG_TYPE, tsig.CLASS_ANY, 0, len(rdata))
    count = int.from_bytes(wire[10:12]) + 1
    return wire[:10] + count.to_bytes(2) + wire[12:] + head + rdata, mac
