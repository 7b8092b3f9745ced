"""Proving the rendezvous' TLS key by the account's signed TLSA record (decision 0003, RFC 6698).

A certificate authority knows nothing of a person's rendezvous. The account's key does: whoever can
sign an answer with it, over *our* request's MAC, is the rendezvous, and the key that this answer
names must be the key of the connection that it came over. A man in the middle who passes question
and answer on is found out, since the connection's key is then his own.
"""

from __future__ import annotations

from typing import Final

import dns.name
import dns.rdatatype
import dns.rdtypes.ANY.TLSA

from discovery import exchange, rcodes
from discovery.exchange import Rejection, Request
from discovery.types import TsigKey

PIN_NAME: Final = "_853._tcp.ns"  # below the domain, whatever port TLS is served on
TLSA: Final = int(dns.rdatatype.TLSA)

_DANE_EE, _SPKI, _SHA256 = 3, 1, 1  # RFC 6698 §2.1


def ask(domain: str, identity: int, key: TsigKey, unix: int) -> Request:
    """Return the signed question for the pin."""
    name = dns.name.from_text(f"{PIN_NAME}.{domain.rstrip('.')}.")
    return exchange.signed_query(name, TLSA, identity, key, unix)


def judge(
    request: Request, wire: bytes, unix: int, connection_pin: bytes
) -> bool | str | Rejection:
    """Judge a message that came over a connection whose key has ``connection_pin``.

    Returns true when the key is proven, false for a message that is not the answer, and otherwise
    one sentence that says why this connection must not be used; where the server refuses our
    signature, that is its :class:`~discovery.exchange.Rejection`.
    """
    judgement = exchange.judge(request, wire, unix)
    if isinstance(judgement, Rejection):
        # Over a stream the server answers each question once: its refusal is all that comes.
        return judgement if judgement.kind != "foreign" else False
    assert request.question is not None
    records = [
        rdata
        for rdata in judgement.at(*request.question)
        if isinstance(rdata, dns.rdtypes.ANY.TLSA.TLSA)
    ]
    pins = [
        bytes(rdata.cert)
        for rdata in records
        if (rdata.usage, rdata.selector, rdata.mtype) == (_DANE_EE, _SPKI, _SHA256)
    ]
    if connection_pin in pins:
        return True
    if judgement.rcode != rcodes.NOERROR or not pins:
        return (
            "the account's zone names no TLS key for its rendezvous "
            f"({judgement.says}); set [rendezvous] pin, or publish its TLSA record"
        )
    return (
        "the rendezvous' TLS key is not the one that the account's zone names: "
        "somebody may be in the middle; nothing was sent"
    )
