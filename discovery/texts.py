"""Octets of the account's own in the zone, as TXT records (RFC 1035 §3.3.14) in base64.

The zone is more than a directory: hosts of the account leave messages for each other there, such
as signing requests. Every record holds one message; reading a name gives all of them. Only the
account's key reads or writes there; what a message proves, it must prove by itself.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT

from discovery import records
from discovery.exchange import Response
from discovery.lookup import Question
from discovery.rcodes import NOERROR, NXDOMAIN
from discovery.types import TextsChanged, TextsFound

TTL: Final = 0  # seconds: never cached
MAX_OCTETS: Final = 3000  # of one message: its base64 fits in one record of 4096 octets

_STRING: Final = 240  # octets of base64 in one string of a TXT record; at most 255


@dataclass(frozen=True, slots=True)
class Change:
    """Add a message at a name below the domain (as text, like ``_sign``), or remove it; without
    a message, all that stand there are removed."""

    prefix: str
    message: bytes | None = None
    add: bool = False


class ReadTexts:
    """One question for the messages at a name; as :class:`discovery.lookup.Lookup` is one."""

    def __init__(self, prefix: str, domain: str) -> None:
        self.prefix = prefix
        self._question = Question(_name(prefix, domain), records.TXT)

    def first(self) -> list[Question]:
        """Return the only question."""
        return [self._question]

    def take(self, question: Question, response: Response) -> TextsFound:
        """Take its answer; a name that is not there holds no message."""
        if response.truncated:
            return self.failed("the answer does not fit; use transport tls or tcp")
        if response.rcode not in (NOERROR, NXDOMAIN):
            return self.failed(f"the rendezvous answers {response.says}")
        found = (read_message(rdata) for rdata in response.at(*question))
        return TextsFound(self.prefix, tuple(one for one in found if one is not None))

    def failed(self, reason: str) -> TextsFound:
        """Return the outcome of a question that came to nothing."""
        return TextsFound(self.prefix, (), reason)


class ChangeTexts:
    """One UPDATE of messages, tried once."""

    def __init__(self, ticket: str) -> None:
        self.ticket = ticket

    def updated(self, response: Response) -> TextsChanged:
        """Take its answer."""
        if response.rcode != NOERROR:
            return self.failed(f"the rendezvous refuses to write ({response.says})")
        return TextsChanged(self.ticket)

    def failed(self, reason: str) -> TextsChanged:
        """Return the outcome of an UPDATE that came to nothing."""
        return TextsChanged(self.ticket, reason)


def change_message(changes: Iterable[Change], domain: str, identity: int) -> bytes:
    """Return the UPDATE (unsigned) that makes ``changes``, in their order."""
    update = records.empty_update(domain, identity, None)
    for change in changes:
        name = _name(change.prefix, domain)
        if change.message is None:
            update.delete(name, "TXT")
        elif change.add:
            update.add(name, TTL, _encode(change.message))
        else:
            update.delete(name, _encode(change.message))
    return update.to_wire(max_size=65535)


def _name(prefix: str, domain: str) -> dns.name.Name:
    return dns.name.from_text(f"{prefix}.{domain.rstrip('.')}.")


def _encode(octets: bytes) -> dns.rdata.Rdata:
    if not 1 <= len(octets) <= MAX_OCTETS:
        raise records.RecordsError(f"a message of {len(octets)} octets does not fit in a record")
    text = b64encode(octets)
    strings = [text[at : at + _STRING] for at in range(0, len(text), _STRING)]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)


def read_message(rdata: dns.rdata.Rdata) -> bytes | None:
    """Return the octets that a record holds, or ``None`` if it holds none of ours."""
    if not isinstance(rdata, dns.rdtypes.ANY.TXT.TXT):
        return None
    try:
        return b64decode(b"".join(rdata.strings), validate=True)
    except binascii.Error:
        return None
