"""The messages of long-lived queries as the rendezvous reads and writes them (RFC 8764 §3, §6)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, TypeAlias

from discovery import llq, message
from discovery.llq import LlqOption
from discovery.message import Question, Request, Writer
from discovery.store import RecordSet

News: TypeAlias = tuple[tuple[RecordSet, bool], ...]
"""Sets of one name, and whether they were removed, as they happened in one commit."""


def has_option(request: Request) -> bool:
    """Say whether a request is about long-lived queries."""
    return request.edns is not None and any(o[0] == llq.OPTION_CODE for o in request.edns.options)


def options_of(request: Request) -> list[LlqOption | None]:
    """Return one option per question, ``None`` for each where they do not match or one has a wrong
    size."""
    data = (
        [d for code, d in request.edns.options if code == llq.OPTION_CODE] if request.edns else []
    )
    if len(data) != len(request.questions) or any(len(d) != llq.OPTION_SIZE for d in data):
        return [None] * len(request.questions)
    return [LlqOption.parse(one) for one in data]


def opt_of(options: Iterable[LlqOption]) -> bytes:
    """Return the OPT record that carries options."""
    packed = llq.pack_options(options)
    return struct.pack("!BHHIH", 0, message.TYPE_OPT, message.UDP_PAYLOAD, 0, len(packed)) + packed


def singly(content: RecordSet, ttl: int | None = None) -> list[RecordSet]:
    """Return each record of a set as a set of its own."""
    chosen = content.ttl if ttl is None else ttl
    return [RecordSet(content.name, content.rdtype, chosen, (item,)) for item in content.items]


def events_of(question: Question, news: Iterable[News]) -> list[bytes]:
    """Return the events that tell what happened to a question, as few as hold it. Of a record that
    changed several times only the end is told."""
    last: dict[tuple[int, bytes], RecordSet] = {}
    for content, removed in (told for commit in news for told in commit):
        for record in singly(content, llq.REMOVED_TTL if removed else None):
            place = (record.rdtype, record.items[0].canonical)
            last.pop(place, None)
            last[place] = record
    opt = opt_of([LlqOption(llq.EVENT)])
    written: list[bytes] = []
    out, empty = _event(question, opt), True
    for record in last.values():
        if not out.record_set(1, record):
            if not empty:
                written.append(out.finish(0, message.QR | message.AA, opt))
            out, empty = _event(question, opt), True
            if not out.record_set(1, record):  # larger than any datagram should be: alone, then
                out = _event(question, opt, message.TCP_PAYLOAD)
                out.record_set(1, record)
        empty = False
    written.append(out.finish(0, message.QR | message.AA, opt))
    return written


_SIGNATURE: Final = 340  # octets: the longest TSIG record of the algorithms that we sign with


def _event(question: Question, opt: bytes, limit: int = message.UDP_PAYLOAD) -> Writer:
    out = Writer(limit - len(opt) - _SIGNATURE)
    out.question(question)
    return out
