"""Zone transfer (AXFR, RFC 5936) for the account itself: its way to take its zone elsewhere.

A transfer is one answer in several messages, signed as :mod:`discovery.tsig_stream` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from discovery import message, tsig
from discovery.content import SOA, ZoneContent
from discovery.message import Reply, Request
from discovery.store import RecordSet
from discovery.tsig_stream import StreamSigner
from discovery.types import TsigKey

CHUNK: Final = 16_000  # octets of records per message, counted without compression

_RECORD_FIXED: Final = 10  # octets: type, class, TTL, RDLENGTH


def transfer(
    content: ZoneContent, request: Request, key: TsigKey, request_mac: bytes, unix: int
) -> list[bytes]:
    """Return the signed messages of a whole zone: SOA, everything else, SOA (RFC 5936 §2.2)."""
    wires: list[bytes] = []
    signer = StreamSigner(key, request_mac)
    for records in _chunks(_records(content)):
        reply = Reply(authoritative=True, answer=records)
        wire = message.render(request, reply, message.TCP_PAYLOAD - tsig.overhead(key))
        assert wire is not None  # a chunk is one record above CHUNK at most
        wires.append(signer.sign(wire, unix))
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
