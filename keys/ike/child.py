"""One CHILD_SA: a pair of ESP SAs and where it stands in its life (RFC 7296 §2.8, §2.17).

::

    ACTIVE ──rekeyed──> REPLACED (receives what is still under way) ──Delete──> DELETING ──> gone

A child that replaces another is known to it as ``mine`` or ``theirs``, by who asked for it;
when both sides asked at once, :mod:`keys.ike.create_child` settles which of them stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from keys.ike.context import Context
from keys.ike.keymat import IkeKeys, Nonces, child_keys
from keys.ike.proposals import (
    ENCRYPTION,
    ESN,
    GROUP,
    PROTOCOL_ESP,
    Proposal,
    Transform,
    TransformType,
    name_of,
)
from keys.ike.types import ChildSa, PeerPolicy, Traffic

SPI_OCTETS = 4


class ChildState(Enum):
    """Where a CHILD_SA stands."""

    ACTIVE = "active"
    REPLACED = "replaced"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one direction may carry before a rekey begins, and before the child ends."""

    soft_packets: int
    soft_octets: int
    packets: int
    octets: int


@dataclass(slots=True, eq=False)
class Child:
    """A CHILD_SA and its timers (monotonic seconds; None is never)."""

    sa: ChildSa
    nonces: Nonces
    rekey_at: float
    expires_at: float
    state: ChildState = ChildState.ACTIVE
    rekeying: bool = False
    mine: Child | None = None
    theirs: Child | None = None
    delete_at: float | None = None
    remove_at: float | None = None
    limits: Limits | None = None
    packets: int = 0  # of the busier direction
    octets: int = 0

    def used(self, packets: int, octets: int, now: float) -> None:
        """Takes over what one direction has carried; brings its rekey or its end forward."""
        limits = self.limits
        assert limits is not None
        was_worn = self._is_worn(limits)
        self.packets, self.octets = max(self.packets, packets), max(self.octets, octets)
        if self._is_worn(limits) and not was_worn:
            self.rekey_at = min(self.rekey_at, now)
        if self.packets >= limits.packets or self.octets >= limits.octets:
            self.expires_at = min(self.expires_at, now)

    def _is_worn(self, limits: Limits) -> bool:
        return self.packets >= limits.soft_packets or self.octets >= limits.soft_octets

    def heir(self) -> Child | None:
        """Who carries our traffic when the peer deletes this one (RFC 7296 §2.8).

        By its Delete the peer says that it holds what has replaced this child; what we made
        ourselves after that the peer has held from the start.
        """
        heir = self.mine or self.theirs
        while heir is not None and heir.mine is not None:
            heir = heir.mine
        return heir


def wanted(policy: PeerPolicy, groups: Sequence[str] = ()) -> dict[TransformType, list[Transform]]:
    """What a policy accepts for ESP, best first; with ``groups`` a fresh key exchange is part."""
    table = {
        TransformType.ENCR: [ENCRYPTION[suite] for suite in policy.suites],
        TransformType.ESN: [ESN[esn] for esn in policy.esn],
    }
    if groups:
        table[TransformType.KE] = [GROUP[group] for group in groups]
    return table


def esp_spi(spi: int) -> bytes:
    """An ESP SPI as it stands in proposals, Delete and REKEY_SA."""
    return spi.to_bytes(SPI_OCTETS, "big")


def valid_esp(proposal: Proposal) -> bool:
    """Whether this is ESP with an SPI that may be used (RFC 4303 §2.1)."""
    return (
        proposal.protocol == PROTOCOL_ESP
        and len(proposal.spi) == SPI_OCTETS
        and int.from_bytes(proposal.spi, "big") > 255
    )


def make_child(
    ctx: Context,
    keys: IkeKeys,
    policy: PeerPolicy,
    chosen: Proposal,
    *,
    spi_in: int,
    mode: str,
    traffic: Traffic,
    nonces: Nonces,
    shared: bytes,
    more: bytes,
    initiator: bool,
    session: int,
    now: float,
) -> Child:
    """Derives the keys of a CHILD_SA from the chosen proposal.

    ``initiator`` is whether we began the exchange that makes it; ``shared`` is the secret of
    its own key exchange, ``more`` those of additional ones, or empty.
    """
    encryption, esn = chosen.of(TransformType.ENCR), chosen.of(TransformType.ESN)
    assert encryption is not None
    suite = name_of(encryption)
    material = child_keys(keys, suite, nonces, shared, more)
    sa = ChildSa(
        peer=policy.name,
        spi_in=spi_in,
        spi_out=int.from_bytes(chosen.spi, "big"),
        suite=suite,
        key_in=material.responder if initiator else material.initiator,
        key_out=material.initiator if initiator else material.responder,
        esn=esn == ESN[True],
        mode=mode,
        local_id=policy.local_id,
        peer_id=policy.peer_id,
        traffic=traffic,
        session=session,
    )
    lifetime = ctx.settings.child_lifetime
    child = Child(sa, nonces, now + rekey_after(ctx, lifetime), now + lifetime)
    packets, octets = ctx.settings.child_packets, ctx.settings.child_octets
    child.limits = Limits(
        int(rekey_after(ctx, packets)), int(rekey_after(ctx, octets)), packets, octets
    )
    return child


def rekey_after(ctx: Context, lifetime: float) -> float:
    """When to begin a rekey: a margin before the end, up to half a margin earlier at random.

    What is replaced has to live until nothing is under way on it, however short its life.
    """
    settings = ctx.settings
    margin = max(lifetime * settings.rekey_margin, min(2 * settings.drain, lifetime / 2))
    return lifetime - margin * (1 + ctx.uniform() / 2)
