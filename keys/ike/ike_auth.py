"""IKE_AUTH, both roles: who each side is, and the first CHILD_SA (RFC 7296 §1.2, §2.15).

::

    initiator                                          responder
    SK{IDi N(INITIAL_CONTACT) IDr AUTH SAi2 TSi TSr} ──>
                                                         AUTH verified: the owner is asked
                                                       <── SK{IDr AUTH SAr2 TSi TSr}
                                                       <── SK{IDr AUTH N(TS_UNACCEPTABLE)}  no child
                                                       <── SK{N(AUTHENTICATION_FAILED)}

The responder makes no child state before AUTH verifies, and none before its owner says that
the peer may have the host id it claims. Meanwhile retransmissions are absorbed.
With certificates there are CERT before AUTH, and CERTREQ in the request: :mod:`keys.ike.proof`.
"""

from __future__ import annotations

from dataclasses import replace

from keys.ike import convergence, mobike, ppk, proof
from keys.ike.agreement import agree, check, install, mode_notifies
from keys.ike.child import Child, esp_spi, wanted
from keys.ike.create_child import complete
from keys.ike.errors import InvalidSyntaxError, RefusedError
from keys.ike.header import Exchange
from keys.ike.informational import Answer, Liveness, authentication_failed, close
from keys.ike.notify import CHILD_ERRORS, Notify, NotifyType
from keys.ike.payloads import Contents, Identity
from keys.ike.proof import ProofError
from keys.ike.proposals import PROTOCOL_ESP, Proposal, describe, offer
from keys.ike.sa import ForChild, IkeSa, Init, Pending, SaState
from keys.ike.selectors import claimed_host, host
from keys.ike.types import AskPeer, IkeFailed, PeerPolicy, PeerUp

# --- Initiator --------------------------------------------------------------------------------


class Authenticate(ForChild):
    """Our IKE_AUTH."""

    exchange = Exchange.IKE_AUTH
    about_child = True

    def __init__(self) -> None:
        self._offered: tuple[Proposal, ...] = ()

    def request(self, sa: IkeSa, now: float) -> Contents | None:
        """Who we are, who we think the peer is, and the child we want."""
        assert sa.name is not None and sa.policy is not None
        asks = Contents(idi=sa.ctx.identity, idr=Identity.fqdn(sa.name))
        try:
            ppk.prove(sa, asks)
        except ProofError as error:
            sa.drop(str(error), now)
            return None
        self.spi_in = sa.ctx.new_child_spi()
        self._offered = (offer(PROTOCOL_ESP, esp_spi(self.spi_in), wanted(sa.policy)),)
        first = not sa.ctx.standing(sa.name)
        asks.notifies += [Notify(NotifyType.INITIAL_CONTACT)] if first else []
        asks.notifies += mode_notifies(sa.policy.mode) + mobike.supported(sa)
        asks.sa = self._offered
        asks.tsi, asks.tsr = host(sa.policy.local_id), host(sa.policy.peer_id)
        return asks

    def tries(self, sa: IkeSa) -> int:
        """The time of the whole attempt is bounded too."""
        return sa.ctx.settings.retransmit_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """The peer proves itself, and the child stands or is refused."""
        error = answer.error()
        if error is not None and error.kind not in CHILD_ERRORS:
            self._give_up(sa, _why_refused(sa, error), now)
            return
        wrong = self._check_peer(sa, answer)
        if wrong is not None:
            self._tell_and_give_up(sa, wrong, now)
            return
        try:
            child = self._take_child(sa, answer, error, now)
        except RefusedError as refused:
            sa.release(self)
            _establish(sa, now)
            sa.ctx.emit(IkeFailed(sa.peer, refused.sentence))
            close(sa, refused.sentence, now)
            return
        mobike.learn(sa, answer)
        _establish(sa, now)
        _announce(sa, child, now)
        if not sa.redundant:
            complete(sa, now)

    def _check_peer(self, sa: IkeSa, answer: Contents) -> str | None:
        assert sa.name is not None
        if answer.idr is None or answer.auth is None:
            raise InvalidSyntaxError("an IKE_AUTH answer without IDr or AUTH")
        if answer.idr.name != sa.name:
            return f"we wanted {sa.name}, but {answer.idr.describe()} answered there"
        return ppk.verify_responder(sa, answer.idr, answer)

    def _take_child(self, sa: IkeSa, answer: Contents, error: Notify | None, now: float) -> Child:
        if error is not None:
            raise RefusedError(error.kind, _why_no_child(sa, error, self._offered))
        agreed = check(sa, answer, self._offered, self.spi_in)
        return install(sa, agreed, sa.nonces, initiator=True, now=now)

    def _give_up(self, sa: IkeSa, reason: str, now: float) -> None:
        sa.release(self)
        sa.drop(reason, now)

    def _tell_and_give_up(self, sa: IkeSa, reason: str, now: float) -> None:
        """The responder believes that an SA stands: one message says that it does not."""
        data = sa.encode(
            Exchange.INFORMATIONAL, sa.window.next_id, authentication_failed(), response=False
        )
        sa.ctx.send(data, sa.remote)
        self._give_up(sa, reason, now)


def _why_refused(sa: IkeSa, error: Notify) -> str:
    if error.kind == NotifyType.AUTHENTICATION_FAILED:
        return (
            f"{sa.peer} refused us as {sa.ctx.local_name} (AUTHENTICATION_FAILED): it does not "
            f"know this name, or {proof.doubt(sa)}, or is not {sa.peer}"
        )
    return f"{sa.peer} refused IKE_AUTH with {error.name}"


def _why_no_child(sa: IkeSa, error: Notify, offered: tuple[Proposal, ...]) -> str:
    assert sa.policy is not None
    ours = {
        NotifyType.NO_PROPOSAL_CHOSEN: f"we offered {describe(offered)}",
        NotifyType.TS_UNACCEPTABLE: f"we wanted {sa.policy.local_id} to {sa.policy.peer_id}",
    }
    wanted_text = next((text for kind, text in ours.items() if kind == error.kind), "")
    ending = f"; {wanted_text}" if wanted_text else ""
    return f"{sa.peer} knows us but refused the child with {error.name}{ending}"


# --- Responder --------------------------------------------------------------------------------


def respond(sa: IkeSa, request: Contents) -> Answer | None:
    """Verifies who asks; then the owner is asked, and the answer waits (None)."""
    if request.idi is None or request.auth is None:
        raise InvalidSyntaxError("an IKE_AUTH request without IDi or AUTH")
    if not request.sa or request.tsi is None or request.tsr is None:
        raise InvalidSyntaxError("an IKE_AUTH request without SA, TSi or TSr")
    wrong = _check_initiator(sa, request.idi, request)
    if wrong is not None:
        raise RefusedError(NotifyType.AUTHENTICATION_FAILED, wrong)
    if len(sa.ctx.asks) >= sa.ctx.settings.ask_limit:
        raise RefusedError(NotifyType.AUTHENTICATION_FAILED, "too many peers wait to be let in")
    sa.name = request.idi.name
    assert sa.name is not None
    sa.state = SaState.ASKING
    contact = request.notify(NotifyType.INITIAL_CONTACT) is not None
    sa.pending = Pending(request, contact)
    sa.ticket = sa.ctx.ticket()
    sa.ctx.asks[sa.ticket] = sa
    sa.ctx.emit(AskPeer(sa.ticket, sa.name, claimed_host(request.tsi), sa.remote))
    return None


def _check_initiator(sa: IkeSa, idi: Identity, request: Contents) -> str | None:
    idr = request.idr
    if idr is not None and idr.name != sa.ctx.local_name:
        return f"{idi.describe()} wants {idr.describe()}; we are {sa.ctx.local_name}"
    return ppk.verify_initiator(sa, idi, request)


def authorise(sa: IkeSa, policy: PeerPolicy, now: float) -> None:
    """The owner agrees: answers with our proof and the child, narrowed to the policy."""
    pending = sa.pending
    assert pending is not None and sa.name is not None
    answer = Contents(idr=sa.ctx.identity, notifies=ppk.told(sa))
    try:
        proof.prove(sa, answer)
    except ProofError as error:
        refuse(sa, str(error), now)
        return
    sa.policy = replace(policy, name=sa.name)
    mobike.learn(sa, pending.request)
    answer.notifies += mobike.supported(sa) if sa.mobike else []
    _establish(sa, now)
    if pending.initial_contact:
        convergence.forget_older(sa, now)
    child = None
    try:
        agreed = agree(sa, pending.request)
        child = install(sa, agreed, sa.nonces, initiator=False, now=now)
        agreed.tell(answer, sa.policy)
    except RefusedError as refused:
        sa.ctx.log("warning", f"no child for {sa.name}: {refused.sentence}")
        answer.notifies.append(refused.notify())
    sa.reply(Exchange.IKE_AUTH, answer)
    _announce(sa, child, now)
    if sa.policy.more and not sa.redundant:
        # Whoever began asks first: both may want the same.
        sa.complete_at = now + sa.ctx.settings.drain


def refuse(sa: IkeSa, reason: str, now: float) -> None:
    """The owner says no, or nothing for too long."""
    sa.ctx.log("warning", f"refused {sa.peer} at {sa.remote[0]} port {sa.remote[1]}: {reason}")
    sa.reply(Exchange.IKE_AUTH, authentication_failed())
    sa.drop(reason, now)


# --- Both -------------------------------------------------------------------------------------


def _establish(sa: IkeSa, now: float) -> None:
    """Both sides are proven. What only AUTH needed is forgotten."""
    sa.state, sa.proven = SaState.ESTABLISHED, sa.remote
    sa.established_at = now
    sa.established_order = sa.ctx.order()
    sa.init = Init()
    sa.pending = None
    if sa.ticket is not None:
        sa.ctx.asks.pop(sa.ticket, None)
        sa.ticket = None
    sa.schedule(now)


def _announce(sa: IkeSa, child: Child | None, now: float) -> None:
    assert sa.name is not None
    convergence.trim(sa, now)
    convergence.converge(sa, now)
    if sa.ctx.standing(sa.name) == [sa]:
        sa.ctx.emit(PeerUp(sa.name, sa.remote, sa.initiator))
    if sa.moved_early and sa.is_established:
        # The peer may have taken our proof from where we were, and answers there.
        mobike.we_moved(sa, now)
        if not sa.mobike:
            sa.enqueue(Liveness(), now)
    if child is not None:
        sa.ctx.log("info", f"{sa.name}: child {child.sa.spi_in:08x}/{child.sa.spi_out:08x} stands")
