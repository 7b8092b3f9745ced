"""Agreeing on a CHILD_SA, in IKE_AUTH and in CREATE_CHILD_SA (RFC 7296 §2.7, §2.9, §1.3.1).

The responder chooses a proposal and narrows the selectors to what its policy says; the initiator
checks that it was given what it offered. Then both install the same thing. A child is in transport
mode when the initiator asked for it and the responder agreed, else in tunnel mode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from keys.ike.child import Child, esp_spi, make_child, valid_esp, wanted
from keys.ike.errors import RefusedError
from keys.ike.keymat import Nonces
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents
from keys.ike.proposals import (
    NO_ADDITIONAL,
    PROTOCOL_ESP,
    Additional,
    Proposal,
    answers,
    choose,
    describe,
    offer,
)
from keys.ike.sa import IkeSa
from keys.ike.selectors import covers, describe_traffic, local_side, peer_side, widest
from keys.ike.selectors import describe as describe_selectors
from keys.ike.types import EVERYTHING, InstallInbound, PeerPolicy, Traffic

TUNNEL, TRANSPORT = "tunnel", "transport"


@dataclass(frozen=True, slots=True)
class Agreed:
    """A child that both sides want: ``chosen`` holds the peer's SPI."""

    chosen: Proposal
    spi_in: int
    mode: str
    traffic: Traffic = EVERYTHING

    def tell(self, answer: Contents, policy: PeerPolicy) -> None:
        """Puts the responder's side of it into an answer."""
        answer.sa = (replace(self.chosen, spi=esp_spi(self.spi_in)),)
        answer.tsi = peer_side(policy.peer_id, self.traffic)
        answer.tsr = local_side(policy.local_id, self.traffic)
        answer.notifies += mode_notifies(self.mode)


def mode_notifies(mode: str) -> list[Notify]:
    """USE_TRANSPORT_MODE where it belongs (RFC 7296 §1.3.1)."""
    return [Notify(NotifyType.USE_TRANSPORT_MODE)] if mode == TRANSPORT else []


def _mode(policy: PeerPolicy, theirs: Contents, traffic: Traffic) -> str:
    """Transport mode needs both sides; either one makes it a tunnel."""
    ours = policy.mode_of(traffic)
    both = ours == TRANSPORT and theirs.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    return TRANSPORT if both else TUNNEL


def check(
    sa: IkeSa,
    answer: Contents,
    offered: tuple[Proposal, ...],
    spi_in: int,
    traffic: Traffic = EVERYTHING,
) -> Agreed:
    """The initiator's side: what the peer chose, once it and the selectors are as they must be.

    Raises:
        RefusedError: the peer chose what we did not offer, or selectors other than ours.
    """
    assert sa.policy is not None
    if not (answer.sa and answer.tsi and answer.tsr):
        raise RefusedError(
            NotifyType.INVALID_SYNTAX, f"{sa.peer} answered without SA, TSi or TSr for the child"
        )
    chosen = answer.sa[0]
    if len(answer.sa) != 1 or not valid_esp(chosen) or not answers(chosen, offered):
        sentence = f"{sa.peer} chose {describe(answer.sa)}; we offered {describe(offered)}"
        raise RefusedError(NotifyType.NO_PROPOSAL_CHOSEN, sentence)
    # We offer exactly what we need on each side, so that no true subset is of use to us.
    ours, theirs = (
        local_side(sa.policy.local_id, traffic),
        peer_side(sa.policy.peer_id, traffic),
    )
    if answer.tsi != ours or answer.tsr != theirs:
        sentence = (
            f"{sa.peer} wants the selectors {describe_selectors(answer.tsi)} to "
            f"{describe_selectors(answer.tsr)}; we offered {describe_selectors(ours)} to "
            f"{describe_selectors(theirs)}"
        )
        raise RefusedError(NotifyType.TS_UNACCEPTABLE, sentence)
    return Agreed(chosen, spi_in, _mode(sa.policy, answer, traffic), traffic)


def agree(
    sa: IkeSa,
    request: Contents,
    groups: tuple[str, ...] = (),
    additional: Additional = NO_ADDITIONAL,
    traffic: Traffic | None = EVERYTHING,
) -> Agreed:
    """The responder's side: chooses, narrows, and takes an SPI, which is given back with
    ``ctx.free_spi`` if nothing comes of it. ``traffic`` is what the child must be for; None:
    whatever the peer asks for between the two host ids.

    Raises:
        RefusedError: nothing acceptable is offered, or the selectors do not hold the traffic.
    """
    policy = sa.policy
    assert policy is not None and request.sa and request.tsi is not None
    assert request.tsr is not None
    table = wanted(policy, groups)
    chosen = choose(request.sa, PROTOCOL_ESP, 4, table, additional)
    if chosen is None or not valid_esp(chosen):
        ours = describe([offer(PROTOCOL_ESP, b"", table)])
        sentence = f"{sa.peer} offers {describe(request.sa)}; we accept {ours}"
        raise RefusedError(NotifyType.NO_PROPOSAL_CHOSEN, sentence)
    ends = request.tsi, request.tsr, policy.peer_id, policy.local_id
    if traffic is None:
        traffic = widest(*ends)
    if traffic is None or not covers(*ends, traffic):
        kind = "" if traffic in (None, EVERYTHING) else f", {describe_traffic(traffic)}"
        sentence = (
            f"{sa.peer} wants {describe_selectors(request.tsi)} to "
            f"{describe_selectors(request.tsr)}; it may have {policy.peer_id} to "
            f"{policy.local_id}{kind}"
        )
        raise RefusedError(NotifyType.TS_UNACCEPTABLE, sentence)
    return Agreed(chosen, sa.ctx.new_child_spi(), _mode(policy, request, traffic), traffic)


def install(
    sa: IkeSa,
    agreed: Agreed,
    nonces: Nonces,
    *,
    initiator: bool,
    now: float,
    shared: bytes = b"",
    more: bytes = b"",
) -> Child:
    """Derives the keys and is ready to receive (§2.8). ``shared`` and ``more`` are the secrets of
    the child's own key exchanges."""
    assert sa.policy is not None and sa.keys is not None
    child = make_child(
        sa.ctx,
        sa.keys,
        sa.policy,
        agreed.chosen,
        spi_in=agreed.spi_in,
        mode=agreed.mode,
        traffic=agreed.traffic,
        nonces=nonces,
        shared=shared,
        more=more,
        initiator=initiator,
        session=sa.established_order,
        now=now,
    )
    sa.add_child(child)
    sa.ctx.emit(InstallInbound(child.sa))
    return child
