"""Protected messages: from a datagram to the exchange that it belongs to.

The order is the defence: bit-for-bit repeats first (they cost nothing and change nothing), then
the tag, then the message id, then the payloads. Before the tag has verified, nothing changes.
Fragments (RFC 7383) are verified one by one and joined; only the whole message is a message.
"""

from __future__ import annotations

from keys.ike import (
    create_child,
    followup,
    ike_auth,
    informational,
    intermediate,
    mobike,
    rekey_ike,
)
from keys.ike.cipher import IntegrityError, place_of
from keys.ike.errors import IkeError, InvalidSyntaxError, RefusedError, UnsupportedCriticalError
from keys.ike.fragments import Assembly, Joined
from keys.ike.header import Exchange, Header
from keys.ike.informational import Answer, Liveness
from keys.ike.notify import NotifyType
from keys.ike.payloads import Contents, PayloadType, decode_contents
from keys.ike.proposals import PROTOCOL_IKE
from keys.ike.sa import ATTEMPTS, IkeSa, SaState
from keys.ike.types import Endpoint

_BEFORE_PROOF = (Exchange.IKE_INTERMEDIATE, Exchange.IKE_AUTH)
_OPEN_FOR_REQUESTS = (SaState.ESTABLISHED, SaState.REKEYED, SaState.CLOSING)


def receive(sa: IkeSa, header: Header, data: bytes, remote: Endpoint, now: float) -> None:
    """Takes a message for ``sa`` that is not of IKE_SA_INIT."""
    if sa.keys is None:
        sa.ctx.counters["no_keys_yet"] += 1
    elif header.response:
        _take_answer(sa, header, data, remote, now)
    else:
        _take_request(sa, header, data, remote, now)


def _read(
    sa: IkeSa, header: Header, data: bytes, pieces: Assembly, awaited: int, now: float
) -> Joined | None:
    """The verified message with the id that we wait for; None for all else, which is counted,
    and as long as fragments of it are missing."""
    counters = sa.ctx.counters
    try:
        if header.next_payload == PayloadType.SKF:
            return _read_fragment(sa, header, data, pieces, awaited, now)
        opened = sa.open(data)
    except IntegrityError:
        counters["integrity"] += 1
        return None
    if header.message_id != awaited:
        counters["message_id"] += 1
        return None
    pieces.forget()
    return Joined(opened, data)


def _read_fragment(
    sa: IkeSa, header: Header, data: bytes, pieces: Assembly, awaited: int, now: float
) -> Joined | None:
    counters, settings = sa.ctx.counters, sa.ctx.settings
    place = place_of(data) if sa.fragmentation else None
    if place is None:
        counters["fragment"] += 1
        return None
    if header.message_id != awaited:
        counters["message_id"] += 1
        return None
    if not pieces.wants(awaited, place, now):
        counters["fragment"] += 1
        return None
    opened = sa.open_fragment(data)
    proven = sa.state in _OPEN_FOR_REQUESTS
    octets = settings.reassembly_octets if proven else settings.reassembly_octets_half_open
    try:
        return pieces.add(awaited, place, opened, data, octets=octets, now=now)
    except InvalidSyntaxError:
        counters["fragment"] += 1
        return None


# --- The peer asks ----------------------------------------------------------------------------


def _take_request(sa: IkeSa, header: Header, data: bytes, remote: Endpoint, now: float) -> None:
    if sa.window.is_repeat(data):
        sa.ctx.counters["repeated_request"] += 1
        if sa.window.answer is not None:
            sa.ctx.send(sa.window.answer, remote)
        if sa.state is SaState.CLOSING:
            sa.window.hasten(now)  # it may believe from this answer that the SA stands
        return
    if not _may_ask(sa, header):
        sa.ctx.counters["unexpected_request"] += 1
        return
    message = _read(sa, header, data, sa.asked, sa.window.expected, now)
    if message is None:
        if _is_cut_anew(sa, header, data):
            sa.ctx.send(sa.window.answer or (), remote)
        return
    sa.window.accept(message.head)
    sa.heard(now, remote)
    exchange = Exchange(header.exchange)
    try:
        if exchange is Exchange.IKE_INTERMEDIATE:
            sa.vouch(message.head, message.opened, ours=False)
        contents = decode_contents(message.opened.payloads())
        answer = _respond(sa, exchange, contents, remote, now)
    except IkeError as error:
        answer = _answer_error(sa, exchange, error, now)
    if answer is None:
        return
    sa.reply(exchange, answer.contents, remote)
    if answer.then is not None:
        answer.then()
    _prove_path(sa, now)


def _is_cut_anew(sa: IkeSa, header: Header, data: bytes) -> bool:
    """Whether this is the first fragment of the request that we answered last, cut into other
    pieces than before (RFC 7383 §2.5.2, §2.6.1)."""
    place = place_of(data) if header.next_payload == PayloadType.SKF else None
    if place is None or place.number != 1 or header.message_id != sa.window.expected - 1:
        return False
    if not sa.fragmentation or sa.window.answer is None:
        return False
    try:
        sa.open_fragment(data)
    except IntegrityError:
        return False
    return True


def _may_ask(sa: IkeSa, header: Header) -> bool:
    """Which requests a state allows; anything else is dropped before its tag is looked at."""
    if sa.state is SaState.HALF_OPEN:
        return header.exchange == _BEFORE_PROOF[0 if sa.rounds else 1]
    return sa.state in _OPEN_FOR_REQUESTS and header.exchange in (
        Exchange.CREATE_CHILD_SA,
        Exchange.IKE_FOLLOWUP_KE,
        Exchange.INFORMATIONAL,
    )


def _respond(
    sa: IkeSa, exchange: Exchange, request: Contents, remote: Endpoint, now: float
) -> Answer | None:
    if exchange is Exchange.IKE_INTERMEDIATE:
        return intermediate.respond(sa, request)
    if exchange is Exchange.IKE_AUTH:
        return ike_auth.respond(sa, request)
    if exchange is Exchange.INFORMATIONAL:
        return _respond_informational(sa, request, remote, now)
    if exchange is Exchange.IKE_FOLLOWUP_KE:
        return followup.respond(sa, request, now)
    about_ike = bool(request.sa) and all(p.protocol == PROTOCOL_IKE for p in request.sa or ())
    rekeying = isinstance(sa.task, rekey_ike.RekeyIke)
    if not sa.is_established or (rekeying and not about_ike):
        sentence = f"{sa.peer} wants a child while the IKE SA is being replaced or closed"
        raise RefusedError(NotifyType.TEMPORARY_FAILURE, sentence)
    respond = rekey_ike.respond if about_ike else create_child.respond
    return respond(sa, request, now)


def _respond_informational(sa: IkeSa, request: Contents, remote: Endpoint, now: float) -> Answer:
    answer = informational.respond(sa, request, now)
    notifies, check = mobike.respond(sa, request, remote, now)
    answer.contents.notifies += notifies
    if check is None:
        return answer

    def then() -> None:
        if answer.then is not None:
            answer.then()
        if sa.is_established:
            mobike.once(sa, check, now)

    return Answer(answer.contents, then)


def _answer_error(sa: IkeSa, exchange: Exchange, error: IkeError, now: float) -> Answer:
    """Errors of syntax end the SA (RFC 7296 §2.21.3), and so does any error before
    the peer is proven."""
    quiet = isinstance(error, RefusedError) and (
        error.notify().kind == NotifyType.TEMPORARY_FAILURE
    )
    if exchange in _BEFORE_PROOF:
        text = f"refused {exchange.name} from {sa.remote[0]}: {error}"
        sa.ctx.complain("authentication", text, now, level="warning")
    else:
        sa.ctx.log("debug" if quiet else "warning", f"refused a request of {sa.peer}: {error}")
    fatal = exchange in _BEFORE_PROOF or isinstance(error, InvalidSyntaxError)
    then = (lambda: sa.drop(f"{sa.peer} sent a wrong message: {error}", now)) if fatal else None
    return Answer(Contents(notifies=[error.notify()]), then)


def _prove_path(sa: IkeSa, now: float) -> None:
    """The peer came from a new endpoint: ESP follows when it has answered from there."""
    if not sa.unproven or not sa.is_established:
        return
    sa.unproven = False

    def proven(_: float) -> None:
        if not sa.unproven:
            sa.send_all()

    sa.enqueue(Liveness(then=proven), now)


# --- The peer answers -------------------------------------------------------------------------


def _take_answer(sa: IkeSa, header: Header, data: bytes, remote: Endpoint, now: float) -> None:
    task, outstanding = sa.task, sa.window.outstanding
    if task is None or outstanding is None:
        sa.ctx.counters["unexpected_answer"] += 1
        return
    if (header.message_id, header.exchange) != (outstanding.message_id, task.exchange):
        sa.ctx.counters["unexpected_answer"] += 1
        return
    message = _read(sa, header, data, sa.told, outstanding.message_id, now)
    if message is None:
        return
    sa.window.answered(header.message_id)
    sa.task = None
    sa.heard(now, remote)
    if not outstanding.repeated:
        sa.rtt = now - outstanding.first_sent
    else:
        mobike.answered_from(sa, remote, now)
    try:
        if task.exchange is Exchange.IKE_INTERMEDIATE:
            sa.vouch(message.head, message.opened, ours=False)
        contents = decode_contents(message.opened.payloads())
        task.answered(sa, contents, now)
        if isinstance(task, Liveness) and sa.is_established:
            mobike.look_at_nat(sa, contents, now)
    except (InvalidSyntaxError, UnsupportedCriticalError, RefusedError) as error:
        sa.release(task)
        _answer_is_wrong(sa, error, now)
    sa.pump(now)


def _answer_is_wrong(sa: IkeSa, error: IkeError, now: float) -> None:
    reason = f"{sa.peer} sent a wrong answer: {error}"
    if sa.state in ATTEMPTS:
        sa.drop(reason, now)
    else:
        informational.close(sa, reason, now)
