"""Strangers' first messages in turns: a flood of them must not keep others waiting.

An IKE_SA_INIT request is all that anybody may say without being known. A host looks at few of them
at once, so that timers, packets and known peers get their turn between; and it looks first at
those that may well be honest: who brings a COOKIE back has heard us (RFC 7296 §2.6), and who has
asked least is not the one who floods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fastpath.types import ControlEvent

AT_ONCE = 256
"""So many are looked at before everything else gets its turn: about 10 ms of a processor."""

_NEXT_PAYLOAD = 16  # its place in an IKE header
_NOTIFY = 41  # a COOKIE stands in front of everything else


def in_turn(events: Sequence[ControlEvent], limit: int = AT_ONCE) -> list[ControlEvent]:
    """At most ``limit`` of ``events`` (IKE_SA_INIT requests), in the order to look at them.

    First those with a COOKIE, then the first of each source, then the second of each, and so on.
    A source is an address; of IPv6 a /64, which every host has.
    """
    if len(events) <= 1:
        return list(events)
    asked: Counter[str] = Counter()
    ranked = []
    for number, event in enumerate(events):
        source = _network(event.source[0])
        asked[source] += 1
        brings = event.data[_NEXT_PAYLOAD] == _NOTIFY
        ranked.append((not brings, asked[source], number))
    ranked.sort()
    return [events[number] for *_, number in ranked[:limit]]


def _network(address: str) -> str:
    if ":" not in address:
        return address
    head = address.split("::", 1)[0].split(":")
    return ":".join((head + ["0"] * 4)[:4])
