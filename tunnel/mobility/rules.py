"""Remapping rules in the draft's syntax (I35, I36): what the data path does, said in its words.

Our data path needs no list of rules: an SA is known by its SPI, says both home addresses, and its
flow says where the peer is; so rules come and go with SAs, bindings and moves at no moment of their
own (I40–I43), and both sets stand while an SA is rekeyed (I42). These are they, for people::

    dir: out, SPI: 0000002a, exp. src: HoA, remap. src: CoA

A peer that is reached by the home agent has none: its packets travel from home address to home
address, nested (I15, I47). What comes is taken from any address, since its seal says who sent it,
and the address is kept beside it, for whom it concerns (``(ancillary)``; decision 0063).
"""

from __future__ import annotations

from dataclasses import dataclass

ANCILLARY = "ancillary"
ANY = "::"


@dataclass(frozen=True, slots=True)
class TrackedSa:
    """A pair of SAs with one peer. ``local`` and ``peer`` are home addresses, ``ours`` and
    ``theirs`` care-of addresses as ``address:port``; ``ours`` is ``None`` where the system chooses.
    ``signals``: for Mobility Headers, whose sender names both addresses for each message (I34)."""

    spi_in: int
    spi_out: int
    local: str
    peer: str
    ours: str | None
    theirs: str
    signals: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule (I35). ``field`` is ``src`` or ``dst``."""

    direction: str
    spi: int
    field: str
    expected: str
    remapped: str

    def __str__(self) -> str:
        head = f"dir: {self.direction:3}, SPI: {self.spi:08x}"
        return f"{head}, exp. {self.field}: {self.expected}, remap. {self.field}: {self.remapped}"


def rules_of(sa: TrackedSa) -> tuple[Rule, ...]:
    """At most one source and one destination rule for each direction (I31, I32)."""
    ours = ANCILLARY if sa.signals or sa.ours is None else sa.ours
    theirs = ANCILLARY if sa.signals else sa.theirs
    rules = [
        Rule("out", sa.spi_out, "src", sa.local, ours),
        Rule("out", sa.spi_out, "dst", sa.peer, theirs),
        Rule("in", sa.spi_in, "src", ANY, f"{sa.peer} ({ANCILLARY})"),
    ]
    if sa.ours is not None:
        rules.insert(2, Rule("in", sa.spi_in, "dst", sa.ours, sa.local))
    return tuple(rules)
