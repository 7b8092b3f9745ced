"""INFORMATIONAL: signs of life and Delete, both roles (RFC 7296 §1.4, §2.4, §2.25).

::

    SK{}                 ──>          are you there?
                         <── SK{}
    SK{D(ESP, SPI…)}     ──>          our inbound SPIs are closed
                         <── SK{D(ESP, SPI…)}   the paired ones; none when the Deletes crossed
    SK{D(IKE)}           ──>          the IKE SA and all its children are closed
                         <── SK{}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from keys.ike import natd
from keys.ike.child import Child, ChildState, esp_spi
from keys.ike.header import Exchange
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents, Delete
from keys.ike.proposals import PROTOCOL_ESP, PROTOCOL_IKE
from keys.ike.sa import ForChild, IkeSa, SaState
from keys.ike.types import Endpoint, ProbeAnswered


@dataclass(slots=True)
class Answer:
    """What a request is answered with, and what happens once the answer is on its way."""

    contents: Contents = field(default_factory=Contents)
    then: Callable[[], None] | None = None


class Liveness:
    """An empty request: only a living peer with our keys can answer it."""

    exchange = Exchange.INFORMATIONAL
    about_child = False

    def __init__(self, *, report: bool = False, then: Callable[[float], None] | None = None):
        self.report = report
        self._then = then
        self._sent = 0.0
        self._moves = 0
        self._target: Endpoint | None = None

    def request(self, sa: IkeSa, now: float) -> Contents:
        """Nothing in it, but NAT detection where the answer may show that a NAT before us has
        changed its mapping (RFC 4555 §3.8)."""
        self._sent, self._moves, self._target = now, sa.moves, sa.remote
        if not (sa.mobike and sa.leads) or sa.behind_nat is False:
            return Contents()
        return Contents(notifies=natd.notifies(sa.spi_i, sa.spi_r, sa.remote, sa.ctx.random))

    def tries(self, sa: IkeSa) -> int:
        """Fewer than elsewhere, so that a dead peer is found out in about 20 s; not so when
        something else waits for the answer, and nothing says that the peer is dead."""
        settings = sa.ctx.settings
        return settings.retransmit_tries if self._then else settings.liveness_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """The peer lives."""
        if self.report and sa.name is not None:
            # Sent to more than one endpoint, the answer does not tell which of them is right.
            proven = self._target if sa.moves == self._moves else None
            sa.proven = proven or sa.proven
            sa.ctx.emit(ProbeAnswered(sa.name, now - self._sent, proven))
        if self._then is not None:
            self._then(now)


class DeleteChild:
    """Our Delete of one CHILD_SA."""

    exchange = Exchange.INFORMATIONAL
    about_child = True

    def __init__(self, child: Child) -> None:
        self.child = child

    def request(self, sa: IkeSa, now: float) -> Contents | None:
        """Our inbound SPI; nothing if the child is gone by now."""
        if self.child.sa.spi_in not in sa.children:
            return None
        self.child.state = ChildState.DELETING
        return Contents(deletes=[Delete(PROTOCOL_ESP, (esp_spi(self.child.sa.spi_in),))])

    def tries(self, sa: IkeSa) -> int:
        """As everywhere."""
        return sa.ctx.settings.retransmit_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """The peer has stopped sending on it; what it sent before may still be under way."""
        self.child.remove_at = now + sa.ctx.settings.drain


class DeleteUnwanted:
    """Our Delete of a child that the peer has made and we have not: ``spi_in`` was to be ours."""

    exchange = Exchange.INFORMATIONAL
    about_child = True

    def __init__(self, spi_in: int) -> None:
        self._spi_in = spi_in

    def request(self, sa: IkeSa, now: float) -> Contents:
        """Our inbound SPI, by which the peer knows the pair."""
        return Contents(deletes=[Delete(PROTOCOL_ESP, (esp_spi(self._spi_in),))])

    def tries(self, sa: IkeSa) -> int:
        """As everywhere."""
        return sa.ctx.settings.retransmit_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """Both sides are without it."""


class DeleteIke:
    """Our Delete of the IKE SA."""

    exchange = Exchange.INFORMATIONAL
    about_child = False

    def request(self, sa: IkeSa, now: float) -> Contents:
        """The last request on this SA."""
        return Contents(deletes=[Delete(PROTOCOL_IKE)])

    def tries(self, sa: IkeSa) -> int:
        """Few: an SA that we close is of no use any more."""
        return sa.ctx.settings.close_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """Both sides have closed it."""
        sa.drop(sa.reason, now)


def close(sa: IkeSa, reason: str, now: float) -> None:
    """Closes an IKE SA: children at once, the SA itself when the peer has answered our Delete.

    ``reason`` is the sentence of the PeerDown that follows, if no other SA stands.
    """
    if not (sa.is_established or sa.state is SaState.REKEYED):
        if sa.state is not SaState.CLOSING:
            sa.drop(reason, now)
        return
    sa.state = SaState.CLOSING
    sa.reason = reason
    for child in list(sa.children.values()):
        sa.remove_child(child)
    sa.clear_queue()
    # An unanswered request of ours holds the window; a dead peer would hold it for minutes.
    settings = sa.ctx.settings
    patience = settings.retransmit_first * (settings.retransmit_factor**settings.close_tries)
    sa.expires_at = now + 2 * patience
    sa.rekey_at = None
    sa.enqueue(DeleteIke(), now)


def delete_child(sa: IkeSa, child: Child, now: float) -> None:
    """Queues our Delete of one child, once."""
    child.delete_at = None
    if child.state is not ChildState.DELETING:
        heir = child.heir()
        if heir is not None and sa.sends_on(child):
            sa.send_on(heir)  # the peer takes nothing on this one once it has our Delete
        child.state = ChildState.DELETING
        sa.enqueue(DeleteChild(child), now)


# --- Responder --------------------------------------------------------------------------------


def respond(sa: IkeSa, request: Contents, now: float) -> Answer:
    """Answers an INFORMATIONAL request; notifications that we do not know change nothing."""
    if any(delete.protocol == PROTOCOL_IKE for delete in request.deletes):
        return _closed_by_peer(sa, now)
    if request.notify(NotifyType.AUTHENTICATION_FAILED) is not None:
        reason = f"{sa.peer} says that our authentication failed: the pre-shared keys differ"
        return Answer(then=lambda: sa.drop(reason, now))
    ours: list[bytes] = []
    closed: list[Child] = []
    for delete in request.deletes:
        if delete.protocol != PROTOCOL_ESP:
            continue
        for spi in delete.spis:
            child = sa.child_by_outbound(int.from_bytes(spi, "big"))
            if child is None and isinstance(sa.task, ForChild):
                sa.task.peer_closed(spi)
            if child is None or child in closed:
                continue
            closed.append(child)
            # Crossing Deletes: ours has told the peer already (RFC 7296 §1.4.1).
            if child.state is not ChildState.DELETING:
                ours.append(esp_spi(child.sa.spi_in))
    deletes = [Delete(PROTOCOL_ESP, tuple(ours))] if ours else []
    return Answer(Contents(deletes=deletes), lambda: _close_children(sa, closed))


def _closed_by_peer(sa: IkeSa, now: float) -> Answer:
    reason = f"{sa.peer} closed the connection"

    def then() -> None:
        sa.drop(reason, now)

    return Answer(then=then)


def _close_children(sa: IkeSa, closed: list[Child]) -> None:
    for child in closed:
        heir = child.heir()
        if heir is not None and sa.sends_on(child):
            sa.send_on(heir)
        sa.remove_child(child)


def authentication_failed() -> Contents:
    """What an initiator tells a responder that did not prove who it is (RFC 7296 §2.21.2)."""
    return Contents(notifies=[Notify(NotifyType.AUTHENTICATION_FAILED)])
