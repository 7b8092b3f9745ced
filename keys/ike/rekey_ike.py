"""CREATE_CHILD_SA for the IKE SA itself, both roles (RFC 7296 §1.3.2, §2.8.2, §2.18).

::

    SK{SA(SPIi) Ni KEi}  ──>
                         <──  SK{SA(SPIr) Nr KEr}
    the children move to the new IKE SA; its message ids begin at 0
    SK{D(IKE)} on the old ──>
"""

from __future__ import annotations

from collections.abc import Callable

from keys.ike import followup
from keys.ike.additional import Rounds, accepted, names
from keys.ike.errors import InvalidSyntaxError, RefusedError
from keys.ike.groups import NAMES, PrivateKey, generate
from keys.ike.header import NO_SPI, Exchange
from keys.ike.informational import Answer, close
from keys.ike.keymat import Nonces, Prf, ike_keys, skeyseed_rekey
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents, KeyExchange
from keys.ike.proposals import (
    GROUP,
    PROTOCOL_IKE,
    Proposal,
    TransformType,
    additional_methods,
    answers,
    choose,
    describe,
    name_of,
    offers,
)
from keys.ike.sa import IkeSa, SaState, Series
from keys.ike.sa_init import NONCE_OCTETS, wanted

SPI_OCTETS = 8


class RekeyIke:
    """Our request to replace the IKE SA, and the IKE_FOLLOWUP_KE exchanges that belong to it."""

    about_child = False

    def __init__(self, group: str | None = None) -> None:
        self.exchange = Exchange.CREATE_CHILD_SA
        self._group = group
        self._offered: tuple[Proposal, ...] = ()
        self._nonce = b""
        self._key: PrivateKey | None = None
        self._new: IkeSa | None = None
        self._chosen: Proposal | None = None
        self._nonces = Nonces(b"", b"")
        self._shared = b""
        self._rounds = Rounds()
        self._link: Notify | None = None

    def request(self, sa: IkeSa, now: float) -> Contents | None:
        """The SA we want, with a fresh SPI of ours."""
        if self._link is not None:
            return followup.ask(sa, self._rounds, self._link)
        if not sa.is_established or sa.theirs is not None:
            return None
        if sa.series is not None and sa.series.new is not None:
            return None  # the peer is about to replace it
        self._new = IkeSa(sa.ctx, sa.remote, initiator=True, state=SaState.RESERVED, now=now)
        sa.reserved = self._new
        group = self._group or sa.group
        self._key = generate(GROUP[group].id, sa.ctx.random)
        self._nonce = sa.ctx.random(NONCE_OCTETS)
        spi = self._new.local_spi
        self._offered = offers(PROTOCOL_IKE, spi, wanted(sa.ctx.settings), followup.wanted(sa))
        return Contents(
            sa=self._offered,
            nonce=self._nonce,
            ke=KeyExchange(self._key.group, self._key.public),
        )

    def tries(self, sa: IkeSa) -> int:
        """As everywhere."""
        return sa.ctx.settings.retransmit_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """The new SA stands, or the old one goes on, or the next key exchange follows."""
        assert self._new is not None
        error = answer.error()
        if error is not None:
            self._end(sa, "the rekey was refused", now)
            self._failed(sa, error, now)
            return
        try:
            self._read(sa, answer)
        except InvalidSyntaxError as wrong:
            self._end(sa, str(wrong), now)
            close(sa, str(wrong), now)
            return
        if self._link is None:
            self._complete(sa, now)
        elif followup.loses(self._nonces, _rival(sa)):
            self._end(sa, "the peer's rekey goes on", now)
            settle(sa, now)
        else:
            sa.queue.appendleft(self)

    def _end(self, sa: IkeSa, reason: str, now: float) -> None:
        assert self._new is not None
        sa.reserved = None
        self._new.drop(reason, now)

    def _complete(self, sa: IkeSa, now: float) -> None:
        assert self._new is not None and self._chosen is not None
        sa.reserved = None
        secrets = (self._shared, self._rounds.more)
        _equip(sa, self._new, self._chosen, self._nonces, secrets, now)
        sa.mine = self._new
        settle(sa, now)

    def _read(self, sa: IkeSa, answer: Contents) -> None:
        if self._link is not None:
            self._rounds.take(answer.ke)
        else:
            self._take(sa, answer)
        self._link = followup.link_of(sa, answer, self._rounds)
        self.exchange = Exchange.IKE_FOLLOWUP_KE

    def _take(self, sa: IkeSa, answer: Contents) -> None:
        key = self._key
        assert key is not None
        if not answer.sa or answer.nonce is None or answer.ke is None:
            raise InvalidSyntaxError(f"{sa.peer} answered an IKE SA rekey without SA, nonce or KE")
        chosen = answer.sa[0]
        if len(answer.sa) != 1 or not answers(chosen, self._offered):
            raise InvalidSyntaxError(f"{sa.peer} chose {describe(answer.sa)}: we did not offer it")
        if len(chosen.spi) != SPI_OCTETS or chosen.spi == NO_SPI:
            raise InvalidSyntaxError(f"{sa.peer} gave no SPI for the new IKE SA")
        method = chosen.of(TransformType.KE)
        if method is None or not method.id == answer.ke.group == key.group:
            raise InvalidSyntaxError(f"{sa.peer} chose a group that we sent no key for")
        self._chosen, self._nonces = chosen, Nonces(self._nonce, answer.nonce)
        self._shared = key.shared(answer.ke.data)
        self._rounds = Rounds(additional_methods(chosen))

    @property
    def follows_up(self) -> bool:
        """Whether the exchange under way is a later one of a series."""
        return self._link is not None

    def _failed(self, sa: IkeSa, error: Notify, now: float) -> None:
        if sa.theirs is not None:
            settle(sa, now)
            return
        group = NAMES.get(int.from_bytes(error.data, "big"))
        wrong_group = error.kind == NotifyType.INVALID_KE_PAYLOAD and self._group is None
        if wrong_group and group in sa.ctx.settings.groups:
            sa.enqueue(RekeyIke(group), now)
            return
        if sa.is_stuck(error.kind, now):
            close(sa, f"{sa.peer} puts every change of the SAs off", now)
            return
        if error.kind == NotifyType.STATE_NOT_FOUND and followup.lost(sa):
            close(sa, f"{sa.peer} forgets every rekey before it is done", now)
            return
        if error.kind != NotifyType.TEMPORARY_FAILURE:
            none = error.kind == NotifyType.NO_PROPOSAL_CHOSEN
            ours = f"; we offered {describe(self._offered)}" if none else ""
            sa.ctx.log("warning", f"{sa.peer} refused an IKE SA rekey with {error.name}{ours}")
        sa.rekey_at = now + sa.ctx.settings.rekey_retry * (1 + sa.ctx.uniform())


# --- Responder --------------------------------------------------------------------------------


def respond(sa: IkeSa, request: Contents, now: float) -> Answer:
    """Answers a request to replace the IKE SA (RFC 7296 §2.25.2 says when not)."""
    if not request.sa or request.nonce is None or request.ke is None:
        raise InvalidSyntaxError("an IKE SA rekey request without SA, nonce or KE")
    busy = sa.task is not None and sa.task.about_child
    busy = busy or (isinstance(sa.task, RekeyIke) and sa.task.follows_up)
    if busy or sa.theirs is not None:
        sentence = f"{sa.peer} wants to rekey the IKE SA while a child is being changed"
        raise RefusedError(NotifyType.TEMPORARY_FAILURE, sentence)
    table = wanted(sa.ctx.settings)
    guessed = [t for t in table[TransformType.KE] if t.id == request.ke.group]
    additional, mine = accepted(sa.ctx.settings), table | {TransformType.KE: guessed}
    chosen = choose(request.sa, PROTOCOL_IKE, SPI_OCTETS, mine, additional)
    chosen = chosen or choose(request.sa, PROTOCOL_IKE, SPI_OCTETS, table, additional)
    method = chosen.of(TransformType.KE) if chosen else None
    if chosen is None or method is None or chosen.spi == NO_SPI:
        sentence = (
            f"{sa.peer} offers {describe(request.sa)} for the new IKE SA; "
            f"we accept {describe(offers(PROTOCOL_IKE, b'', table, additional))}"
        )
        raise RefusedError(NotifyType.NO_PROPOSAL_CHOSEN, sentence)
    if method.id != request.ke.group:
        sentence = f"{sa.peer} guessed another group than {name_of(method)}"
        wanted_group = method.id.to_bytes(2, "big")
        raise RefusedError(NotifyType.INVALID_KE_PAYLOAD, sentence, wanted_group)
    key = generate(method.id, sa.ctx.random)
    shared = key.shared(request.ke.data)
    nonces = Nonces(request.nonce, sa.ctx.random(NONCE_OCTETS))
    new = IkeSa(sa.ctx, sa.remote, initiator=False, state=SaState.RESERVED, now=now)
    ours = Proposal(chosen.number, PROTOCOL_IKE, new.local_spi, chosen.transforms)
    answer = Contents(sa=(ours,), nonce=nonces.r, ke=KeyExchange(key.group, key.public))

    def finish(more: bytes, at: float) -> Callable[[], None]:
        _equip(sa, new, chosen, nonces, (shared, more), at)
        sa.theirs = new
        return lambda: settle(sa, at)

    rounds = Rounds(additional_methods(chosen))
    if not rounds:
        sa.cancel_series(now)
        return Answer(answer, finish(b"", now))
    new.remote_spi = chosen.spi
    series = Series(
        b"", rounds, nonces, None, new, now, finish, lambda at: new.drop("it was left", at)
    )
    return followup.begin(sa, series, answer, now)


def _rival(sa: IkeSa) -> Nonces | None:
    """The nonces of the peer's own rekey."""
    if sa.theirs is not None:
        return sa.theirs.nonces
    return sa.series.nonces if sa.series and sa.series.new is not None else None


# --- Both -------------------------------------------------------------------------------------


def _equip(
    old: IkeSa,
    new: IkeSa,
    chosen: Proposal,
    nonces: Nonces,
    secrets: tuple[bytes, bytes],
    now: float,
) -> None:
    """Keys, names and times of the new SA; the children come later. ``secrets`` are that of the
    first key exchange, and those of additional ones."""
    assert old.keys is not None
    encryption, prf, method = (
        chosen.of(kind) for kind in (TransformType.ENCR, TransformType.PRF, TransformType.KE)
    )
    assert encryption and prf and method
    new.remote_spi = chosen.spi
    seed = skeyseed_rekey(old.keys, nonces, *secrets)
    function = Prf(name_of(prf))
    new.use_keys(ike_keys(function, name_of(encryption), seed, nonces, new.spi_i, new.spi_r))
    new.nonces = nonces
    new.group = name_of(method)
    new.additional = names(additional_methods(chosen))
    new.name, new.policy = old.name, old.policy
    new.authentication, new.peer_certificates = old.authentication, old.peer_certificates
    new.rtt, new.last_heard = old.rtt, now
    new.behind_nat, new.peer_behind_nat = old.behind_nat, old.peer_behind_nat
    new.redundant, new.ppk = old.redundant, old.ppk
    new.fragmentation = old.fragmentation
    new.mobike, new.leads = old.mobike, old.leads
    new.peer_addresses = old.peer_addresses
    new.state = SaState.ESTABLISHED
    new.established_at = now
    new.established_order = old.established_order
    new.schedule(now)


def settle(old: IkeSa, now: float) -> None:
    """Decides which SA inherits the children: called when a successor has come to stand."""
    mine, theirs = old.mine, old.theirs
    if mine is not None and theirs is not None:
        if mine.nonces.lowest < theirs.nonces.lowest:
            old.bequeath(theirs, now)
            close(mine, f"another IKE SA with {old.name} stands", now)
        else:
            # The peer deletes its own; it may have forgotten it over our Delete of the old one.
            theirs.retire(now)
            old.bequeath(mine, now)
            close(old, f"another IKE SA with {old.name} stands", now)
    elif mine is not None:
        old.bequeath(mine, now)
        close(old, f"another IKE SA with {old.name} stands", now)
    elif theirs is not None and not isinstance(old.task, RekeyIke):
        old.bequeath(theirs, now)
