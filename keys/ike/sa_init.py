"""IKE_SA_INIT, both roles (RFC 7296 §1.2, §2.6, §2.7, §2.14).

::

    initiator                                       responder
    [N(COOKIE)] SAi1 KEi Ni N(NATD) N(NATD)  ──>
                                             <──    N(COOKIE)                 too many half-open SAs
                                             <──    N(INVALID_KE_PAYLOAD)     another group, please
                                             <──    SAr1 KEr Nr N(NATD) N(NATD)

Nothing here is authenticated. The initiator acts at once on COOKIE, INVALID_KE_PAYLOAD and
INVALID_MAJOR_VERSION only; any other refusal is remembered and believed when nothing better came
for a while (§2.21.1). The responder keeps no state for a stranger until a COOKIE says that it is
where it claims, as soon as there are more than a few of them.
"""

from __future__ import annotations

from keys.ike import natd, ppk, proof
from keys.ike.additional import Rounds, accepted, names
from keys.ike.context import Context
from keys.ike.cookie import demand, glance
from keys.ike.errors import IkeError, InvalidSyntaxError, RefusedError
from keys.ike.groups import NAMES, PrivateKey, generate
from keys.ike.header import NO_SPI, Exchange, Header
from keys.ike.ike_auth import Authenticate
from keys.ike.intermediate import Intermediate
from keys.ike.keymat import Nonces, Prf, ike_keys, skeyseed
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents, KeyExchange, decode_chain, decode_contents
from keys.ike.proposals import (
    ENCRYPTION,
    GROUP,
    PRF,
    PROTOCOL_IKE,
    Additional,
    Proposal,
    Transform,
    TransformType,
    additional_methods,
    answers,
    choose,
    describe,
    name_of,
    offers,
)
from keys.ike.sa import IkeSa, SaState, plain_message
from keys.ike.settings import IkeSettings
from keys.ike.types import Endpoint, PeerPolicy
from keys.ike.window import digest

NONCE_OCTETS = 32  # at least half the key of the longest prf that we offer (RFC 7296 §2.10)
INTERMEDIATE = Notify(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED)
FRAGMENTATION = Notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)
MAX_RETRIES = 6  # COOKIE and INVALID_KE_PAYLOAD together; an honest peer needs three


def wanted(settings: IkeSettings) -> dict[TransformType, list[Transform]]:
    """What we accept for an IKE SA, best first."""
    return {
        TransformType.ENCR: [ENCRYPTION[name] for name in settings.encryption],
        TransformType.PRF: [PRF[name] for name in settings.prf],
        TransformType.KE: [GROUP[name] for name in settings.groups],
    }


# --- Initiator --------------------------------------------------------------------------------


class Init:
    """Our IKE_SA_INIT: the request, and what may come back instead of an answer."""

    exchange = Exchange.IKE_SA_INIT
    about_child = False

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._nonce = ctx.random(NONCE_OCTETS)
        self._key: PrivateKey = generate(GROUP[ctx.settings.groups[0]].id, ctx.random)
        self._offered = offers(PROTOCOL_IKE, b"", wanted(ctx.settings), accepted(ctx.settings))
        self._cookie: Notify | None = None
        self._retries = 0
        self.refusal: str | None = None

    def request(self, sa: IkeSa, now: float) -> Contents:
        """The request as it is now; AUTH signs the last one that was sent."""
        nat = natd.notifies(sa.spi_i, sa.spi_r, sa.remote, self._ctx.random)
        contents = Contents(
            sa=self._offered,
            ke=KeyExchange(self._key.group, self._key.public),
            nonce=self._nonce,
            notifies=[
                *([self._cookie] if self._cookie else []),
                *nat,
                FRAGMENTATION,
                *([INTERMEDIATE] if self._ctx.settings.additional else []),
                *proof.offered_hashes(self._ctx, sa.name),
                *ppk.offered(self._ctx, sa.name),
            ],
        )
        header = sa.header(Exchange.IKE_SA_INIT, 0, response=False)
        sa.init.request = plain_message(header, contents.encode())
        return contents

    def tries(self, sa: IkeSa) -> int:
        """As often as an established SA would; the time of the whole attempt is bounded too."""
        return sa.ctx.settings.retransmit_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """Never called: an answer to this exchange needs its octets, see ``take``."""
        raise AssertionError

    def take(self, sa: IkeSa, header: Header, data: bytes, source: Endpoint, now: float) -> None:
        """An answer, maybe. Raises IkeError when it is not good; then we keep waiting. A refusal
        counts only when it is the last one that may come: another endpoint may be the peer."""
        answer = decode_contents(decode_chain(header.next_payload, data[28:]))
        cookie = answer.notify(NotifyType.COOKIE)
        wrong_group = answer.notify(NotifyType.INVALID_KE_PAYLOAD)
        if cookie is not None:
            self._bring_cookie(sa, cookie, source, now)
        elif wrong_group is not None:
            self._change_group(sa, wrong_group, source, now)
        elif answer.error() is not None:
            self._remember_refusal(sa, answer, now)
        else:
            self._accept(sa, header, answer, data, source, now)

    def _bring_cookie(self, sa: IkeSa, cookie: Notify, source: Endpoint, now: float) -> None:
        if not 1 <= len(cookie.data) <= 64:
            raise InvalidSyntaxError("a COOKIE that is not 1 to 64 octets long")
        if self._cookie != cookie:
            self._cookie = Notify(NotifyType.COOKIE, cookie.data)
            self._ask_again(sa, source, now)

    def _change_group(self, sa: IkeSa, notify: Notify, source: Endpoint, now: float) -> None:
        group = int.from_bytes(notify.data, "big") if len(notify.data) == 2 else 0
        ours = [GROUP[name].id for name in self._ctx.settings.groups]
        if group not in ours:
            self.refusal = (
                f"{sa.peer} wants key exchange method {group}; we offer "
                f"{', '.join(self._ctx.settings.groups)}"
            )
        elif group != self._key.group:
            self._key = generate(group, self._ctx.random)
            self._ask_again(sa, source, now)

    def _ask_again(self, sa: IkeSa, source: Endpoint, now: float) -> None:
        """With what ``source`` wants: AUTH signs this request, so the race is over."""
        if self._retries >= MAX_RETRIES:
            return
        self._retries += 1
        sa.answered_by(source, now)
        self.request(sa, now)
        sa.window.again((sa.init.request,), now)
        sa.ctx.send(sa.init.request, sa.remote)

    def _remember_refusal(self, sa: IkeSa, answer: Contents, now: float) -> None:
        error = answer.error()
        assert error is not None
        if error.kind == NotifyType.NO_PROPOSAL_CHOSEN:
            why = f"it accepts none of what we offer ({describe(self._offered)})"
        elif error.kind == NotifyType.INVALID_MAJOR_VERSION:
            why = "it does not speak IKEv2"
        else:
            why = "it did not say more"
        told = f"{sa.peer} refused IKE_SA_INIT with {error.name}: {why}"
        self._believe_later(sa, told, now, at_once=error.kind == NotifyType.INVALID_MAJOR_VERSION)

    def _believe_later(self, sa: IkeSa, refusal: str, now: float, *, at_once: bool = False) -> None:
        self.refusal = refusal
        patience = now if at_once else now + self._ctx.settings.refusal_patience
        sa.expires_at = min(patience, sa.expires_at or patience)

    def _accept(
        self,
        sa: IkeSa,
        header: Header,
        answer: Contents,
        data: bytes,
        source: Endpoint,
        now: float,
    ) -> None:
        if header.spi_r == NO_SPI or not (answer.sa and answer.ke and answer.nonce):
            raise InvalidSyntaxError("an IKE_SA_INIT answer without SPI, SA, KE or nonce")
        missing = ppk.missing(sa, answer)
        if missing is not None:
            self._believe_later(sa, missing, now)
            return
        chosen = answer.sa[0]
        if len(answer.sa) != 1 or not answers(chosen, self._offered) or chosen.spi:
            raise InvalidSyntaxError("the peer chose what we did not offer")
        method = chosen.of(TransformType.KE)
        if method is None or not method.id == answer.ke.group == self._key.group:
            raise InvalidSyntaxError("the peer's key is of another group than the one it chose")
        if additional_methods(chosen) and not _does_intermediate(answer):
            raise InvalidSyntaxError("the peer chose more key exchanges but cannot do them")
        shared = self._key.shared(answer.ke.data)
        sa.answered_by(source, now)
        sa.window.answered(0)
        sa.remote_spi = header.spi_r
        sa.init.response = data
        _settle(sa, chosen, Nonces(self._nonce, answer.nonce), shared)
        _learn_nat(sa, answer, sa.remote)
        sa.fragmentation = _joins_fragments(answer)
        ppk.learn(sa, answer, ppk.offered(self._ctx, sa.name))
        proof.learn_hashes(sa, answer)
        sa.heard(now)
        sa.state = SaState.AUTHENTICATING
        sa.task = None
        for _ in range(len(sa.rounds)):
            sa.enqueue(Intermediate(), now)
        sa.enqueue(Authenticate(), now)


def begin(ctx: Context, name: str, policy: PeerPolicy, remote: Endpoint, now: float) -> IkeSa:
    """Sends our first message to ``name``."""
    sa = IkeSa(ctx, remote, initiator=True, state=SaState.CONNECTING, now=now)
    sa.name, sa.policy = name, policy
    sa.expires_at = now + ctx.settings.connect_timeout
    sa.enqueue(Init(ctx), now)
    return sa


def race(sa: IkeSa, remote: Endpoint, now: float) -> None:
    """The peer may be at ``remote``, too: the very same message goes there, so that a peer who
    gets both makes one SA of them. The first endpoint that answers is the one. It has as much time
    for that as if it had been the first that was tried."""
    if remote != sa.remote and remote not in sa.race and sa.window.outstanding is not None:
        sa.race = (*sa.race, remote)
        sa.expires_at = now + sa.ctx.settings.connect_timeout
        sa.ctx.send(sa.window.outstanding.data, remote)


def take_answer(sa: IkeSa, header: Header, data: bytes, source: Endpoint, now: float) -> None:
    """An IKE_SA_INIT answer for our SPI. What is wrong with it is counted and forgotten."""
    if sa.state is not SaState.CONNECTING or not isinstance(sa.task, Init) or source in sa.lost:
        sa.ctx.counters["late_init_answer"] += 1
        return
    try:
        sa.task.take(sa, header, data, source, now)
    except IkeError as error:
        text = f"ignored an IKE_SA_INIT answer for {sa.peer}: {error}"
        sa.ctx.complain("bad_init_answer", text, now)


# --- Responder --------------------------------------------------------------------------------


def take_request(ctx: Context, header: Header, data: bytes, remote: Endpoint, now: float) -> None:
    """A stranger's IKE_SA_INIT request."""
    request = digest(data)
    known = ctx.by_request(request)
    if known is not None:
        ctx.counters["repeated_request"] += 1
        if known.state is SaState.HALF_OPEN:
            ctx.send(known.init.response, remote)
        return
    try:
        if _demands_cookie(ctx, header, data, remote, now):
            return
        contents = decode_contents(decode_chain(header.next_payload, data[28:]))
        if not (contents.sa and contents.ke and contents.nonce):
            raise InvalidSyntaxError("an IKE_SA_INIT request without SA, KE or nonce")
        if ctx.half_open.total >= ctx.settings.half_open_limit:
            ctx.counters["half_open_limit"] += 1
        elif ctx.half_open.of(remote) >= ctx.settings.half_open_per_source:
            ctx.counters["half_open_per_source"] += 1
        else:
            _answer(ctx, header, contents, data, remote, now)
    except IkeError as error:
        text = f"refused IKE_SA_INIT from {remote[0]} port {remote[1]}: {error}"
        # Whoever sets up a peer must see why the two do not match.
        mismatch = error.notify().kind == NotifyType.NO_PROPOSAL_CHOSEN
        ctx.complain("bad_init_request", text, now, level="info" if mismatch else "debug")
        ctx.answer_stranger(_error(header, error.notify()), remote, now)


def _demands_cookie(
    ctx: Context, header: Header, data: bytes, remote: Endpoint, now: float
) -> bool:
    """Whether this stranger must first bring the COOKIE that it is told."""
    if ctx.half_open.total < ctx.settings.cookie_threshold:
        return False
    seen = glance(data)
    if seen is None:
        raise InvalidSyntaxError("an IKE_SA_INIT request without SA, KE or nonce")
    if ctx.cookies.check(seen.cookie, seen.nonce, header.spi_i, remote, now):
        return False
    ctx.counters["cookie_demanded"] += 1
    # Not limited: it is smaller than the request, and honest peers need theirs in a flood.
    made = ctx.cookies.make(seen.nonce, header.spi_i, remote, now)
    ctx.send(demand(header.spi_i, made), remote)
    return True


def _answer(
    ctx: Context, header: Header, contents: Contents, data: bytes, remote: Endpoint, now: float
) -> None:
    assert contents.sa and contents.ke and contents.nonce
    additional = accepted(ctx.settings)
    if not _does_intermediate(contents):
        additional = Additional(required=additional.required)
    chosen = _choose(ctx, contents.sa, contents.ke, additional)
    method = chosen.of(TransformType.KE)
    assert method is not None
    if method.id != contents.ke.group:
        sentence = f"the peer guessed {_group(contents.ke.group)}; we want {name_of(method)}"
        raise RefusedError(NotifyType.INVALID_KE_PAYLOAD, sentence, method.id.to_bytes(2, "big"))
    key = generate(method.id, ctx.random)
    shared = key.shared(contents.ke.data)

    sa = IkeSa(ctx, remote, initiator=False, state=SaState.HALF_OPEN, now=now)
    sa.remote_spi = header.spi_i
    sa.expires_at = now + ctx.settings.half_open_timeout
    sa.request_digest = digest(data)
    ctx.remember_request(sa.request_digest, sa)
    nonces = Nonces(contents.nonce, ctx.random(NONCE_OCTETS))
    use_ppk = ppk.accepted(ctx, contents)
    answer = Contents(
        sa=(chosen,),
        ke=KeyExchange(key.group, key.public),
        nonce=nonces.r,
        notifies=[
            *natd.notifies(sa.spi_i, sa.spi_r, remote, ctx.random),
            *([FRAGMENTATION] if _joins_fragments(contents) else []),
            *([INTERMEDIATE] if additional.methods else []),
            *proof.offered_hashes(ctx, None),
            *use_ppk,
        ],
        certreq=ctx.certification.authorities() if ctx.certification else None,
    )
    sa.init.request = data
    answered = sa.header(Exchange.IKE_SA_INIT, 0, response=True)
    sa.init.response = plain_message(answered, answer.encode())
    sa.window.expected = 1
    _settle(sa, chosen, nonces, shared)
    _learn_nat(sa, contents, remote)
    sa.fragmentation = _joins_fragments(contents)
    ppk.learn(sa, contents, use_ppk)
    proof.learn_hashes(sa, contents)
    ctx.send(sa.init.response, remote)


def _choose(
    ctx: Context, offered: tuple[Proposal, ...], ke: KeyExchange, additional: Additional
) -> Proposal:
    table = wanted(ctx.settings)
    guessed = [t for t in table[TransformType.KE] if t.id == ke.group]
    # A group of ours that the peer has already made a key for saves a round trip.
    for groups in (guessed, table[TransformType.KE]):
        kind = {TransformType.KE: groups}
        chosen = choose(offered, PROTOCOL_IKE, 0, table | kind, additional)
        if chosen is not None:
            return chosen
    ours = describe(offers(PROTOCOL_IKE, b"", table, accepted(ctx.settings)))
    raise RefusedError(
        NotifyType.NO_PROPOSAL_CHOSEN, f"the peer offers {describe(offered)}; we accept {ours}"
    )


def _group(number: int) -> str:
    return NAMES.get(number, f"key exchange method {number}")


def _error(header: Header, notify: Notify) -> bytes:
    answer = Header(header.spi_i, NO_SPI, Exchange.IKE_SA_INIT, 0, response=True, initiator=False)
    return plain_message(answer, Contents(notifies=[notify]).encode())


# --- Both -------------------------------------------------------------------------------------


def _settle(sa: IkeSa, chosen: Proposal, nonces: Nonces, shared: bytes) -> None:
    encryption, prf, method = (
        chosen.of(kind) for kind in (TransformType.ENCR, TransformType.PRF, TransformType.KE)
    )
    assert encryption and prf and method
    function = Prf(name_of(prf))
    seed = skeyseed(function, nonces, shared)
    sa.nonces = nonces
    sa.group = name_of(method)
    methods = additional_methods(chosen)
    sa.additional, sa.rounds = names(methods), Rounds(methods)
    sa.use_keys(ike_keys(function, name_of(encryption), seed, nonces, sa.spi_i, sa.spi_r))


def _does_intermediate(contents: Contents) -> bool:
    """Whether the peer knows IKE_INTERMEDIATE (RFC 9242 §3.1)."""
    return contents.notify(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED) is not None


def _joins_fragments(contents: Contents) -> bool:
    """Whether the peer joins fragments (RFC 7383 §2.3)."""
    return contents.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is not None


def _learn_nat(sa: IkeSa, contents: Contents, remote: Endpoint) -> None:
    """In a request SPIr is zero; in an answer both stand (RFC 7296 §2.23)."""
    spi_r = sa.spi_r if sa.initiator else NO_SPI
    sa.peer_behind_nat = natd.peer_behind_nat(contents, sa.spi_i, spi_r, remote)
    if sa.initiator:
        sa.learn_nat(contents)
    sa.behind_nat = natd.we_are_behind_nat(contents, sa.spi_i, spi_r, sa.ctx.own)
