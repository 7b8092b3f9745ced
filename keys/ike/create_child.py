"""CREATE_CHILD_SA for children: new ones and rekeys, both roles (RFC 7296 §1.3.1, §1.3.3, §2.8).

::

    initiator                                            responder
    SK{[N(REKEY_SA)] SA Ni [KEi] TSi TSr}  ──>           installs inbound, then answers
    installs both, sends on new            <──  SK{SA Nr [KEr] TSi TSr}
    …what is under way on the old arrives…
    SK{D(old)}                             ──>           sends on new, closes the old
    closes the old a little later          <──  SK{D(old)}

No packet is lost: each side can receive on the new SA before the other sends on it, and on the
old one until the other has stopped. If both sides rekey the same child at once there are two
new ones; the one whose exchange held the lowest of the four nonces is closed by its creator, and
the creator of the other one deletes the old (§2.8.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from keys.ike import followup
from keys.ike.additional import Rounds, accepted
from keys.ike.agreement import Agreed, agree, check, install, mode_notifies
from keys.ike.child import Child, ChildState, esp_spi, wanted
from keys.ike.errors import IkeError, InvalidSyntaxError, RefusedError
from keys.ike.groups import NAMES, PrivateKey, generate
from keys.ike.header import Exchange
from keys.ike.informational import Answer, DeleteUnwanted, close, delete_child
from keys.ike.keymat import Nonces
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents, KeyExchange
from keys.ike.proposals import (
    GROUP,
    NO_ADDITIONAL,
    PROTOCOL_ESP,
    Proposal,
    TransformType,
    additional_methods,
    choose,
    describe,
    name_of,
    offer,
    offers,
)
from keys.ike.sa import ForChild, IkeSa, Series
from keys.ike.selectors import describe as describe_selectors
from keys.ike.selectors import describe_traffic, local_side, peer_side
from keys.ike.types import EVERYTHING, IkeFailed, Traffic

NONCE_OCTETS = 32
SHORTEST_PAUSE = 0.1  # seconds between two tries of a rekey


class CreateChild(ForChild):
    """Our CREATE_CHILD_SA: a new child, or one that replaces ``old``; and the IKE_FOLLOWUP_KE
    exchanges that belong to it."""

    about_child = True

    def __init__(
        self,
        old: Child | None = None,
        group: str | None = None,
        traffic: Traffic = EVERYTHING,
    ) -> None:
        self.old = old
        self.traffic = traffic if old is None else old.sa.traffic
        self.exchange = Exchange.CREATE_CHILD_SA
        self._group = group
        self._retried = group is not None
        self._offered: tuple[Proposal, ...] = ()
        self._nonce = b""
        self._key: PrivateKey | None = None
        self._agreed: Agreed | None = None
        self._nonces = Nonces(b"", b"")
        self._shared = b""
        self._rounds = Rounds()
        self._link: Notify | None = None
        if old is not None:
            old.rekeying = True

    def request(self, sa: IkeSa, now: float) -> Contents | None:
        """The child we want; nothing if the old one has been replaced or closed by now."""
        if self._link is not None:
            return followup.ask(sa, self._rounds, self._link)
        if not sa.is_established or sa.policy is None or not self._is_needed(sa):
            if self.old is not None:
                self.old.rekeying = False
            return None
        self.spi_in = sa.ctx.new_child_spi()
        self._nonce = sa.ctx.random(NONCE_OCTETS)
        self._offer(sa)
        rekey = []
        if self.old is not None:
            spi = esp_spi(self.old.sa.spi_in)
            rekey = [Notify(NotifyType.REKEY_SA, protocol=PROTOCOL_ESP, spi=spi)]
        return Contents(
            notifies=rekey + mode_notifies(sa.policy.mode_of(self.traffic)),
            sa=self._offered,
            nonce=self._nonce,
            ke=KeyExchange(self._key.group, self._key.public) if self._key else None,
            tsi=local_side(sa.policy.local_id, self.traffic),
            tsr=peer_side(sa.policy.peer_id, self.traffic),
        )

    def follows_up_on(self, old: Child) -> bool:
        """Whether the exchange under way is a later one of a series that replaces ``old``."""
        return self.old is old and self._link is not None

    def _is_needed(self, sa: IkeSa) -> bool:
        if self.old is None:
            return sa.active_child(self.traffic) is None
        if sa.series is not None and sa.series.old is self.old:
            return False  # the peer is about to replace it
        return self.old.sa.spi_in in sa.children and self.old.state is ChildState.ACTIVE

    def _offer(self, sa: IkeSa) -> None:
        """With a fresh key exchange first, and without one for peers that want none."""
        assert sa.policy is not None
        spi, settings = esp_spi(self.spi_in), sa.ctx.settings
        plain = wanted(sa.policy)
        if not settings.pfs:
            self._offered = (offer(PROTOCOL_ESP, spi, plain),)
            return
        group = self._group or sa.group
        self._key = generate(GROUP[group].id, sa.ctx.random)
        groups = (group, *(name for name in settings.groups if name != group))
        fresh = offers(PROTOCOL_ESP, spi, wanted(sa.policy, groups), followup.wanted(sa))
        self._offered = (*fresh, offer(PROTOCOL_ESP, spi, plain, number=len(fresh) + 1))

    def tries(self, sa: IkeSa) -> int:
        """As everywhere."""
        return sa.ctx.settings.retransmit_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """The new child stands, or the old one goes on, or the next key exchange follows."""
        error = answer.error()
        if error is not None:
            self._end(sa)
            self._failed(sa, error, now)
            return
        try:
            self._read(sa, answer)
        except (RefusedError, InvalidSyntaxError) as wrong:
            self._disagree(sa, wrong, now)
            return
        if self._link is None:
            self._complete(sa, now)
        elif followup.loses(self._nonces, self._rival(sa)):
            self._end(sa)
            if self.old is not None and self.old.theirs is not None:
                settle(sa, self.old, now)
        else:
            sa.queue.appendleft(self)

    def _disagree(self, sa: IkeSa, wrong: IkeError, now: float) -> None:
        """The peer has made a child that we do not want. One beside the first goes alone."""
        spi_in = self.spi_in
        self._end(sa)
        extra = self.old is None and self.traffic != EVERYTHING and isinstance(wrong, RefusedError)
        if extra:
            sa.ctx.log("warning", f"no child for {describe_traffic(self.traffic)}: {wrong}")
            sa.enqueue(DeleteUnwanted(spi_in), now)
        else:
            close(sa, str(wrong), now)

    def _end(self, sa: IkeSa) -> None:
        sa.release(self)
        if self.old is not None:
            self.old.rekeying = False

    def _read(self, sa: IkeSa, answer: Contents) -> None:
        if self._link is not None:
            self._rounds.take(answer.ke)
        else:
            self._agreed = check(sa, answer, self._offered, self.spi_in, self.traffic)
            if answer.nonce is None:
                raise InvalidSyntaxError(f"{sa.peer} answered CREATE_CHILD_SA without a nonce")
            self._nonces = Nonces(self._nonce, answer.nonce)
            self._shared = self._secret(sa, self._agreed.chosen, answer)
            self._rounds = Rounds(additional_methods(self._agreed.chosen))
        self._link = followup.link_of(sa, answer, self._rounds)
        self.exchange = Exchange.IKE_FOLLOWUP_KE

    def _rival(self, sa: IkeSa) -> Nonces | None:
        """The nonces of the peer's own rekey of the same child."""
        if self.old is None:
            return None
        if self.old.theirs is not None:
            return self.old.theirs.nonces
        return sa.series.nonces if sa.series and sa.series.old is self.old else None

    def _complete(self, sa: IkeSa, now: float) -> None:
        assert self._agreed is not None
        if self._agreed.chosen.spi in self.closed:
            self._begin_anew(sa, now)
            return
        child = install(
            sa,
            self._agreed,
            self._nonces,
            initiator=True,
            now=now,
            shared=self._shared,
            more=self._rounds.more,
        )
        sa.lost_series, sa.put_off = 0, None
        if self.old is None:
            sa.send_on(child)
            return
        self.old.rekeying = False
        self.old.mine = child
        settle(sa, self.old, now)

    def _begin_anew(self, sa: IkeSa, now: float) -> None:
        """The answer comes late: the peer has closed the child again before we heard of it."""
        self._end(sa)
        if self.old is None:
            sa.enqueue(CreateChild(traffic=self.traffic), now)
        else:
            self.old.rekey_at = now + sa.ctx.settings.rekey_retry

    def _secret(self, sa: IkeSa, chosen: Proposal, answer: Contents) -> bytes:
        method = chosen.of(TransformType.KE)
        if method is None:
            return b""
        if self._key is None or answer.ke is None or answer.ke.group != self._key.group:
            raise InvalidSyntaxError(f"{sa.peer} chose {name_of(method)} without a key for it")
        if method.id != self._key.group:
            raise InvalidSyntaxError(f"{sa.peer} chose {name_of(method)}, but we sent another key")
        return self._key.shared(answer.ke.data)

    def _ours(self, sa: IkeSa, error: Notify) -> str:
        """What the peer did not want, for the end of a sentence."""
        assert sa.policy is not None
        if error.kind == NotifyType.NO_PROPOSAL_CHOSEN:
            return f"; we offered {describe(self._offered)}"
        if error.kind == NotifyType.TS_UNACCEPTABLE:
            ours = local_side(sa.policy.local_id, self.traffic)
            theirs = peer_side(sa.policy.peer_id, self.traffic)
            return f"; we wanted {describe_selectors(ours)} to {describe_selectors(theirs)}"
        return ""

    def _failed(self, sa: IkeSa, error: Notify, now: float) -> None:
        old = self.old
        if sa.is_stuck(error.kind, now):
            close(sa, f"{sa.peer} puts every change of the SAs off", now)
            return
        if error.kind == NotifyType.INVALID_KE_PAYLOAD and not self._retried:
            group = NAMES.get(int.from_bytes(error.data, "big"))
            if group in sa.ctx.settings.groups:
                sa.enqueue(CreateChild(old, group, self.traffic), now)
                return
        if old is not None and old.theirs is not None:
            settle(sa, old, now)  # the peer's own rekey of it went through
            return
        if error.kind == NotifyType.CHILD_SA_NOT_FOUND and old is not None:
            # The peer has lost it: replace it rather than rekey it (RFC 7296 §2.25).
            sa.remove_child(old)
            sa.enqueue(CreateChild(traffic=self.traffic), now)
            return
        if error.kind == NotifyType.STATE_NOT_FOUND and followup.lost(sa):
            close(sa, f"{sa.peer} forgets every rekey before it is done", now)
            return
        if old is None and self.traffic != EVERYTHING:
            kind = describe_traffic(self.traffic)
            told = f"{sa.peer} refused a child for {kind} with {error.name}{self._ours(sa, error)}"
            sa.ctx.log("warning", told)
        elif old is None:
            reason = f"{sa.peer} refused a new child with {error.name}{self._ours(sa, error)}"
            sa.ctx.emit(IkeFailed(sa.peer, reason))
        elif error.kind != NotifyType.TEMPORARY_FAILURE:
            told = f"{sa.peer} refused the rekey of a child with {error.name}"
            sa.ctx.log("warning", told + self._ours(sa, error))
        if old is not None:
            # Tried again until the child ends; then it is replaced.
            old.rekey_at = now + _pause(sa, old, now) * (1 + sa.ctx.uniform())


def _pause(sa: IkeSa, child: Child, now: float) -> float:
    """Seconds until a rekey that was put off is tried again: the usual ones, or less where little
    of the child's life is left, so that it is not lost to two rekeys that crossed."""
    return min(sa.ctx.settings.rekey_retry, max(SHORTEST_PAUSE, (child.expires_at - now) / 4))


def complete(sa: IkeSa, now: float) -> None:
    """Asks for those children of the policy that are not there."""
    asked = {task.traffic for task in (sa.task, *sa.queue) if isinstance(task, CreateChild)}
    for child in sa.policy.more if sa.policy is not None else ():
        if child.traffic not in asked and sa.active_child(child.traffic) is None:
            sa.enqueue(CreateChild(traffic=child.traffic), now)


def rekey(sa: IkeSa, child: Child, now: float) -> None:
    """Begins the rekey of a child, once.

    One that the peer has just made waits: as long as we do not send on it, the peer may not
    have our answer, and would not know what we want to rekey.
    """
    if not sa.sends_on(child):
        child.rekey_at = now + _pause(sa, child, now)
    elif child.state is ChildState.ACTIVE and not child.rekeying:
        child.rekey_at = float("inf")
        sa.enqueue(CreateChild(child), now)


# --- Responder --------------------------------------------------------------------------------


def respond(sa: IkeSa, request: Contents, now: float) -> Answer:
    """Answers a request for a child; the caller has seen to it that it is not about the IKE SA."""
    if not request.sa or request.nonce is None or request.tsi is None or request.tsr is None:
        raise InvalidSyntaxError("a CREATE_CHILD_SA request without SA, nonce, TSi or TSr")
    old = _old_child(sa, request)
    groups, key = _answer_key_exchange(sa, request.sa, request.ke)
    nonces = Nonces(request.nonce, sa.ctx.random(NONCE_OCTETS))
    shared = key.shared(request.ke.data) if key and request.ke else b""
    additional = replace(accepted(sa.ctx.settings), required=False) if groups else NO_ADDITIONAL
    agreed = agree(sa, request, groups, additional, old.sa.traffic if old else None)
    assert sa.policy is not None
    answer = Contents(nonce=nonces.r, ke=KeyExchange(key.group, key.public) if key else None)
    agreed.tell(answer, sa.policy)

    def finish(more: bytes, at: float) -> Callable[[], None]:
        child = install(sa, agreed, nonces, initiator=False, now=at, shared=shared, more=more)
        if old is None or old.sa.spi_in not in sa.children:
            return lambda: sa.send_on(child)
        old.theirs = child
        return lambda: settle(sa, old, at)

    rounds = Rounds(additional_methods(agreed.chosen))
    if not rounds:
        return Answer(answer, finish(b"", now))
    series = Series(
        b"", rounds, nonces, old, None, now, finish, lambda _: sa.ctx.free_spi(agreed.spi_in)
    )
    return followup.begin(sa, series, answer, now)


def _old_child(sa: IkeSa, request: Contents) -> Child | None:
    """The child that the request is about to replace; None for a new one (RFC 7296 §2.25.1)."""
    notify = request.notify(NotifyType.REKEY_SA)
    if notify is None:
        if len(sa.children) >= sa.ctx.settings.children_per_sa:
            sentence = f"{sa.peer} wants more than {sa.ctx.settings.children_per_sa} children"
            raise RefusedError(NotifyType.NO_ADDITIONAL_SAS, sentence)
        return None
    old = sa.child_by_outbound(int.from_bytes(notify.spi, "big"))
    if old is None and isinstance(sa.task, CreateChild):
        # It may be the one that we have asked for: only its answer has not come yet.
        sentence = f"{sa.peer} wants to rekey a child while we wait to hear of one"
        raise RefusedError(NotifyType.TEMPORARY_FAILURE, sentence)
    if old is None or notify.protocol != PROTOCOL_ESP:
        sentence = f"{sa.peer} wants to rekey a child that we do not have"
        raise RefusedError(NotifyType.CHILD_SA_NOT_FOUND, sentence, esp_spi=notify.spi)
    following = isinstance(sa.task, CreateChild) and sa.task.follows_up_on(old)
    if old.state is ChildState.DELETING or old.theirs is not None or following:
        sentence = f"{sa.peer} wants to rekey a child that is being closed or replaced"
        raise RefusedError(NotifyType.TEMPORARY_FAILURE, sentence)
    return old


def _answer_key_exchange(
    sa: IkeSa, offered: Sequence[Proposal], ke: KeyExchange | None
) -> tuple[tuple[str, ...], PrivateKey | None]:
    """Which groups the child may use, and our key if there is to be a fresh exchange."""
    assert sa.policy is not None
    guess = NAMES.get(ke.group) if ke else None
    guessed = (guess,) if guess in sa.ctx.settings.groups and guess else ()
    for groups in (guessed, sa.ctx.settings.groups):
        table, additional = wanted(sa.policy, groups), accepted(sa.ctx.settings)
        additional = replace(additional, required=False)
        chosen = choose(offered, PROTOCOL_ESP, 4, table, additional) if groups else None
        method = chosen.of(TransformType.KE) if chosen else None
        if method is None:
            continue
        if ke is None or ke.group != method.id:
            raise RefusedError(
                NotifyType.INVALID_KE_PAYLOAD,
                f"{sa.peer} guessed another group than {name_of(method)}",
                method.id.to_bytes(2, "big"),
            )
        return groups, generate(method.id, sa.ctx.random)
    return (), None


# --- Both -------------------------------------------------------------------------------------


def settle(sa: IkeSa, old: Child, now: float) -> None:
    """Decides what follows ``old``: called whenever one of its successors has come to stand."""
    mine, theirs = old.mine, old.theirs
    if mine is not None and theirs is not None:
        if mine.nonces.lowest < theirs.nonces.lowest:
            # Ours is redundant: we close it; the peer, whose child survives, deletes the old
            # as soon as it has our answer. Until then it may not be able to receive on its own.
            old.mine, old.delete_at = None, None
            old.state = ChildState.REPLACED
            if sa.sends_on(mine):
                sa.send_on(old)
            delete_child(sa, mine, now)
        else:
            theirs.state = ChildState.REPLACED
            _replace(sa, old, mine, now)
    elif mine is not None:
        _replace(sa, old, mine, now)
    elif not (isinstance(sa.task, CreateChild) and sa.task.old is old):
        # We send on the old one until the peer deletes it: then it has surely got our answer.
        old.state = ChildState.REPLACED


def _replace(sa: IkeSa, old: Child, new: Child, now: float) -> None:
    """Our child takes over; the old one is deleted when nothing of ours is under way on it."""
    sa.send_on(new)
    old.state = ChildState.REPLACED
    old.delete_at = now + sa.ctx.settings.drain
