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
from keys.ike.selectors import describe as describe_selectors
from keys.ike.selectors import hold, host
from keys.ike.types import InstallInbound, PeerPolicy

TUNNEL, TRANSPORT = "tunnel", "transport"


@dataclass(frozen=True, slots=True)
class Agreed:
    """A child that both sides want: ``chosen`` holds the peer's SPI."""

    chosen: Proposal
    spi_in: int
    mode: str

    def tell(self, answer: Contents, policy: PeerPolicy) -> None:
        """Puts the responder's side of it into an answer."""
        answer.sa = (replace(self.chosen, spi=esp_spi(self.spi_in)),)
        answer.tsi, answer.tsr = host(policy.peer_id), host(policy.local_id)
        answer.notifies += mode_notifies(self.mode)


def mode_notifies(mode: str) -> list[Notify]:
    """USE_TRANSPORT_MODE where it belongs (RFC 7296 §1.3.1)."""
    return [Notify(NotifyType.USE_TRANSPORT_MODE)] if mode == TRANSPORT else []


def _mode(policy: PeerPolicy, theirs: Contents) -> str:
    """Transport mode needs both sides; either one makes it a tunnel."""
    both = policy.mode == TRANSPORT and theirs.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    return TRANSPORT if both else TUNNEL


def check(sa: IkeSa, answer: Contents, offered: tuple[Proposal, ...], spi_in: int) -> Agreed:
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
    # We offer exactly one host id on each side, so that no true subset is of use to us.
    if answer.tsi != host(sa.policy.local_id) or answer.tsr != host(sa.policy.peer_id):
        sentence = (
            f"{sa.peer} wants the selectors {describe_selectors(answer.tsi)} to "
            f"{describe_selectors(answer.tsr)}; we offered {sa.policy.local_id} to "
            f"{sa.policy.peer_id}"
        )
        raise RefusedError(NotifyType.TS_UNACCEPTABLE, sentence)
    return Agreed(chosen, spi_in, _mode(sa.policy, answer))


def agree(
    sa: IkeSa,
    request: Contents,
    groups: tuple[str, ...] = (),
    additional: Additional = NO_ADDITIONAL,
) -> Agreed:
    """The responder's side: chooses, narrows, and takes an SPI, which is given back with
    ``ctx.free_spi`` if nothing comes of it.

    Raises:
        RefusedError: nothing acceptable is offered, or the selectors do not hold both host ids.
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
    if not hold(request.tsi, policy.peer_id) or not hold(request.tsr, policy.local_id):
        sentence = (
            f"{sa.peer} wants {describe_selectors(request.tsi)} to "
            f"{describe_selectors(request.tsr)}; it may have {policy.peer_id} to {policy.local_id}"
        )
        raise RefusedError(NotifyType.TS_UNACCEPTABLE, sentence)
    return Agreed(chosen, sa.ctx.new_child_spi(), _mode(policy, request))


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
        nonces=nonces,
        shared=shared,
        more=more,
        initiator=initiator,
        now=now,
    )
    sa.add_child(child)
    sa.ctx.emit(InstallInbound(child.sa))
    return child
