"""Finding a zone's server by its SRV records: which names to ask for, and in which order to try.

The names are those of RFC 6281 §5.2 and §5.3 first, then draft-zhu-mobileme-doc-02's and those of
Apple's clients, then RFC 8765's; one server serves all of them here, and a zone that names only
some of them is found by those. A host that shall speak TLS never asks for the names without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

TLS_NAMES: Final = (
    "_dns-update-tls._udp",  # RFC 6281 §5.2 (B37)
    "_dns-llq-tls._udp",  # RFC 6281 §5.3 (B43)
    "_dns-update-tls._tcp",  # Apple's clients
    "_dns-llq-tls._tcp",
    "_dns-query-tls._tcp",
    "_dns-push-tls._tcp",  # RFC 8765 §6.1
)
CLEAR_NAMES: Final = (
    "_dns-update._udp",  # draft-zhu-mobileme-doc-02 §5.2
    "_dns-llq._udp",  # RFC 8764 §4
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """The data of one SRV record; ``target`` as text without the last dot, "" for the root."""

    priority: int
    weight: int
    target: str
    port: int


def names(transport: str) -> tuple[str, ...]:
    """Return the SRV names below the domain to ask for, in order."""
    return TLS_NAMES if transport == "tls" else CLEAR_NAMES


def in_order(
    candidates: Iterable[Candidate], random: Callable[[int], bytes]
) -> list[tuple[str, int]]:
    """Return (target, port) in the order of RFC 2782: the lowest priority first, and within
    one a draw by weight. A target of "." says that there is no such service."""
    left = sorted(
        (one for one in candidates if one.target and one.port),
        key=lambda one: (one.priority, one.weight, one.target, one.port),  # weight 0 comes first
    )
    ordered: list[tuple[str, int]] = []
    while left:
        equal = [one for one in left if one.priority == left[0].priority]
        total = sum(one.weight for one in equal)
        drawn = int.from_bytes(random(4)) % (total + 1)
        running = 0
        for one in equal:
            running += one.weight
            if running >= drawn:
                break
        left.remove(one)
        ordered.append((one.target, one.port))
    return list(dict.fromkeys(ordered))
