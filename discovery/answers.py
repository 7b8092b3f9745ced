"""Answers to queries (RFC 1034 §4.3.2, with RFC 4592 wildcards), and who may ask what.

The zone is private (B4): a question that is not signed gets the bootstrap records and nothing else,
and a refusal never says whether a name is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import dns.name
import dns.rdatatype

from discovery import rcodes
from discovery.content import CNAME, NS, SOA, ZoneContent
from discovery.message import TYPE_ANY, Question, Reply, refuse
from discovery.store import RecordSet

MAX_ALIASES: Final = 8

_A, _AAAA = int(dns.rdatatype.A), int(dns.rdatatype.AAAA)
_SRV, _PTR, _TXT = int(dns.rdatatype.SRV), int(dns.rdatatype.PTR), int(dns.rdatatype.TXT)


def answer_signed(content: ZoneContent, question: Question) -> Reply:
    """Answer a question of the account itself: anything in its zone."""
    reply = Reply(authoritative=True)
    name = question.name
    for _ in range(MAX_ALIASES):
        found, alias = _at(content, name, question.rdtype)
        reply.answer += found
        if alias is None or not alias.is_subdomain(content.origin):
            break
        name = alias
    else:
        return Reply(rcode=rcodes.SERVFAIL, reason="too many aliases", authoritative=True)
    if not found:
        reply.rcode = rcodes.NOERROR if _exists(content, name) else rcodes.NXDOMAIN
        reply.authority.append(_negative_soa(content))
    reply.additional += additional_to(content, reply.answer)
    return reply


def answer_unsigned(
    content: ZoneContent, question: Question, public: Collection[dns.name.Name]
) -> Reply:
    """Answer a question of anyone: the way to the server (``public`` names), and no more."""
    if question.name in public and question.rdtype != TYPE_ANY:
        return answer_signed(content, question)
    if question.name == content.origin and question.rdtype in (SOA, NS):
        return answer_signed(content, question)
    if question.rdtype == SOA:
        # Finding the zone of a name (RFC 8764 §4, RFC 8765 §6.1): the answer is the same whether
        # the name exists or not, so it tells nothing.
        return Reply(authoritative=True, authority=[_negative_soa(content)])
    return refuse("names of this zone are answered to signed questions only (TSIG)")


def _at(
    content: ZoneContent, name: dns.name.Name, rdtype: int
) -> tuple[list[RecordSet], dns.name.Name | None]:
    """Return the sets that answer at one name, and the alias to follow."""
    node = content.at(name)
    if not node and not content.is_above_something(name):
        node = {t: _at_name(s, name) for t, s in _wildcard(content, name).items()}
    if rdtype == TYPE_ANY:
        return list(node.values()), None
    if rdtype in node:
        return [node[rdtype]], None
    if CNAME in node:
        alias = node[CNAME].items[0].rdata
        return [node[CNAME]], getattr(alias, "target", None)
    return [], None


def _at_name(content: RecordSet, name: dns.name.Name) -> RecordSet:
    return RecordSet(name, content.rdtype, content.ttl, content.items)


def _wildcard(content: ZoneContent, name: dns.name.Name) -> dict[int, RecordSet]:
    """Return the sets of the wildcard at the closest encloser of a name that does not exist."""
    encloser = name
    while encloser != content.origin:
        encloser = encloser.parent()
        if content.at(encloser) or content.is_above_something(encloser):
            break
    return dict(content.at(dns.name.Name((b"*", *encloser.labels))))


def _exists(content: ZoneContent, name: dns.name.Name) -> bool:
    return bool(content.at(name) or content.is_above_something(name) or _wildcard(content, name))


def _negative_soa(content: ZoneContent) -> RecordSet:
    """Return the SOA for the authority section of a negative answer (RFC 2308 §3)."""
    soa = content.get(content.origin, SOA)
    assert soa is not None
    return RecordSet(soa.name, SOA, min(soa.ttl, content.soa.minimum), soa.items)


def additional_to(content: ZoneContent, answer: Iterable[RecordSet]) -> list[RecordSet]:
    """Return what a requestor will ask next (RFC 2782; RFC 6763 §12): the SRV and TXT of a PTR's
    target, the addresses of an SRV's or NS's."""
    wanted = {_PTR: (_SRV, _TXT), _SRV: (_A, _AAAA), NS: (_A, _AAAA)}
    answered = list(answer)
    seen = {(content_set.name, content_set.rdtype) for content_set in answered}
    found: list[RecordSet] = []
    for record_set in (s for s in answered if s.rdtype in wanted):
        for item in record_set.items:
            target = getattr(item.rdata, "target", None)
            if target is None:
                continue
            for rdtype in wanted[record_set.rdtype]:
                extra = content.get(target, rdtype)
                if extra is not None and (target, rdtype) not in seen:
                    seen.add((target, rdtype))
                    found.append(extra)
    return found
