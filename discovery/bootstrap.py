"""The records of a zone that are the rendezvous' own (RFC 6281 §5.2, §5.3; B37, B43).

They lead a stranger who knows only the domain to the server: SOA, NS, the server's addresses at
``ns.<domain>``, and the bootstrap SRV names, those of RFC 6281, of draft-zhu-mobileme-doc-02 and of
Apple's clients. All of these are public. The TLSA record, by which hosts check the server's TLS key
(decision 0003), is not: it is answered only to signed questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from discovery.content import NS, SOA
from discovery.store import Item, RecordSet, SetKey

SERVER_LABEL: Final = "ns"
FRONT_LABEL: Final = "autotunnel-server"
"""Our own name in a zone whose name servers are others (:mod:`discovery.backing`)."""
PIN_PREFIX: Final = f"_853._tcp.{SERVER_LABEL}"  # the name is fixed, whatever port TLS is served on
INVITE_LABEL: Final = "_invite"

PLAIN_SERVICES: Final = ("_dns-update._udp", "_dns-llq._udp")
TLS_SERVICES: Final = (
    "_dns-update-tls._udp",
    "_dns-llq-tls._udp",
    "_dns-update-tls._tcp",
    "_dns-llq-tls._tcp",
    "_dns-query-tls._tcp",
    "_dns-push-tls._tcp",  # RFC 8765 §6.1
)

TTL: Final = 300  # seconds: a server that moves is found again soon
# SOA timers, seconds: there are no secondaries yet; a "no such name" may be cached for a minute.
_REFRESH, _RETRY, _EXPIRE, _NEGATIVE = 7200, 900, 1209600, 60


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Where this rendezvous is reached: its addresses as text, its ports (``None``: not served),
    and the SHA-256 of its TLS key's SubjectPublicKeyInfo (``None``: no TLS)."""

    addresses: tuple[str, ...] = ()
    port: int | None = None
    tls_port: int | None = None
    pin: bytes | None = None


UNPLACED: Final = ServerIdentity()
"""A server that is reached nowhere: the simulator's, and tests'."""


def below(prefix: str, origin: dns.name.Name) -> dns.name.Name:
    """Return the name ``<prefix>.<origin>``."""
    return dns.name.from_text(prefix, origin)


def public_names(origin: dns.name.Name) -> frozenset[dns.name.Name]:
    """Return the names below the apex that unsigned questions may ask for."""
    prefixes = (SERVER_LABEL, *PLAIN_SERVICES, *TLS_SERVICES)
    return frozenset(below(prefix, origin) for prefix in prefixes)


def reserved_names(origin: dns.name.Name) -> frozenset[dns.name.Name]:
    """Return the names that only the server itself writes (the apex is not among them)."""
    return public_names(origin) | {below(PIN_PREFIX, origin)}


def apex_records(origin: dns.name.Name, serial: int) -> tuple[RecordSet, RecordSet]:
    """Return the SOA and NS of a new zone."""
    server = below(SERVER_LABEL, origin)
    contact = below("hostmaster", origin)
    timers = f"{serial} {_REFRESH} {_RETRY} {_EXPIRE} {_NEGATIVE}"
    soa = _rdata("SOA", f"{server.to_text()} {contact.to_text()} {timers}")
    return (
        RecordSet(origin, SOA, TTL, (Item(soa),)),
        RecordSet(origin, NS, TTL, (Item(_rdata("NS", server.to_text())),)),
    )


def server_records(
    origin: dns.name.Name, server: ServerIdentity, label: str = SERVER_LABEL
) -> dict[SetKey, RecordSet]:
    """Return all sets that stand at the reserved names, by key. ``label`` is the server's own."""
    host = below(label, origin)
    found: list[RecordSet] = []
    for rdtype, marker in (("A", "."), ("AAAA", ":")):
        addresses = [text for text in server.addresses if (":" in text) == (marker == ":")]
        found += _set(host, rdtype, addresses)
    for services, port in ((PLAIN_SERVICES, server.port), (TLS_SERVICES, server.tls_port)):
        if port is not None:
            for service in services:
                found += _set(below(service, origin), "SRV", [f"0 0 {port} {host.to_text()}"])
    if server.pin is not None:
        found += _set(below(PIN_PREFIX, origin), "TLSA", [f"3 1 1 {server.pin.hex()}"])
    return {(content.name, content.rdtype): content for content in found}


def _set(name: dns.name.Name, rdtype: str, texts: Iterable[str]) -> list[RecordSet]:
    items = tuple(Item(_rdata(rdtype, text)) for text in texts)
    number = int(dns.rdatatype.from_text(rdtype))
    return [RecordSet(name, number, TTL, items)] if items else []


def _rdata(rdtype: str, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), text)
