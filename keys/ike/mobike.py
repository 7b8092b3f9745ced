"""MOBIKE (RFC 4555), both roles: outer endpoints change, SPIs, keys and host ids stay.

::

    leader (began the first IKE SA), from its new address        follower
    SK{N(UPDATE_SA_ADDRESSES) N(NATD) N(NATD) N(COOKIE2)}  ──>   IKE answers there from now on
                                                           <──   SK{N(NATD) N(NATD) N(COOKIE2)}
                                                           <──   SK{N(COOKIE2)}    are you there?
    SK{N(COOKIE2)}                                         ──>   only now the children follow

    follower that has moved
                        <──   SK{N(ADDITIONAL_IP6_ADDRESS)… or N(NO_ADDITIONAL_ADDRESSES)}
    SK{}  ──>           and the leader updates the addresses to where that came from, as above

The leader decides which addresses are used. Data goes to an endpoint only after an exchange with
a COOKIE2 has shown that the peer hears us there (§3.7); when none comes, IKE goes back to where
the data still flows.

When a path has fallen silent, a request goes to one of the peer's other addresses besides, a
different one each time. An answer from there shows a way: the leader updates the addresses to it, a
follower sends there once a COOKIE2 has come back (§3.9, §3.7).
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from keys.ike import natd
from keys.ike.errors import RefusedError
from keys.ike.header import Exchange
from keys.ike.informational import close
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents
from keys.ike.sa import IkeSa
from keys.ike.types import Endpoint

IKE_PORT = 4500  # of an address that stands in a list (§3.3: both sides use it)
MAX_ADDRESSES = 8
SILENT_REPEATS = (
    2  # so often a request is repeated where the peer was, before it goes elsewhere too
)
_COOKIE_OCTETS = 16
_COOKIES = range(8, 65)
_LISTS: dict[int, int] = {
    NotifyType.ADDITIONAL_IP4_ADDRESS: 4,
    NotifyType.ADDITIONAL_IP6_ADDRESS: 16,
}  # octets


def supported(sa: IkeSa) -> list[Notify]:
    """What our IKE_AUTH message says."""
    if not sa.ctx.settings.mobike:
        return []
    return [Notify(NotifyType.MOBIKE_SUPPORTED), *addresses(sa)]


def learn(sa: IkeSa, contents: Contents) -> None:
    """Reads the peer's IKE_AUTH message."""
    theirs = contents.notify(NotifyType.MOBIKE_SUPPORTED) is not None
    sa.mobike = sa.ctx.settings.mobike and theirs
    _read_addresses(sa, contents)


def addresses(sa: IkeSa) -> list[Notify]:
    """Our other addresses: one stands in the IP header, of the family that we use now (§3.4). By
    relay none is told: how that path is left for a direct one is not IKE's to say."""
    if sa.is_relayed:
        return [Notify(NotifyType.NO_ADDITIONAL_ADDRESSES)]
    family = ip_address(_bare(sa.remote)).version
    others = [ip_address(_bare(e)) for e in sa.ctx.locals if e[1] == IKE_PORT]
    made = [
        Notify(
            NotifyType.ADDITIONAL_IP4_ADDRESS
            if address.version == 4
            else NotifyType.ADDITIONAL_IP6_ADDRESS,
            address.packed,
        )
        for address in others
        if address.version != family
    ]
    return made or [Notify(NotifyType.NO_ADDITIONAL_ADDRESSES)]


def _bare(endpoint: Endpoint) -> str:
    return endpoint[0].partition("%")[0]


def _read_addresses(sa: IkeSa, contents: Contents) -> bool:
    """Takes over a whole new list (§3.6); whether there was one."""
    lists = [n for n in contents.notifies if len(n.data) == _LISTS.get(n.kind)]
    if not lists and contents.notify(NotifyType.NO_ADDITIONAL_ADDRESSES) is None:
        return False
    found = [(str(ip_address(n.data)), IKE_PORT) for n in lists[:MAX_ADDRESSES]]
    sa.peer_addresses = tuple(endpoint for endpoint in found if acceptable(endpoint))
    return True


def acceptable(endpoint: Endpoint) -> bool:
    """Whether a peer can be at this endpoint at all."""
    address = ip_address(_bare(endpoint))
    return endpoint[1] != 0 and not (address.is_multicast or address.is_unspecified)


# --- Our requests -----------------------------------------------------------------------------


class RouteCheck:
    """Is the peer where its messages say? (§3.7)

    ``back`` is where it was until now: IKE returns there when nothing comes back.
    """

    exchange = Exchange.INFORMATIONAL
    about_child = False

    def __init__(self, back: Endpoint | None = None) -> None:
        self._back = back
        self._moves = 0
        self._cookie = b""

    def request(self, sa: IkeSa, now: float) -> Contents:
        """A cookie that only who hears us can send back."""
        self._moves = sa.moves
        self._cookie = sa.ctx.random(_COOKIE_OCTETS)
        return Contents(notifies=[Notify(NotifyType.COOKIE2, self._cookie)])

    def tries(self, sa: IkeSa) -> int:
        """Few while there is a way back."""
        settings = sa.ctx.settings
        return settings.retransmit_tries if self._back is None else settings.route_tries

    def gave_up(self, sa: IkeSa) -> bool:
        """Nothing came from the new endpoint: whether there is an old one to ask at."""
        if self._back is None or self._back == sa.remote:
            return False
        sa.remote, self._back = self._back, None
        sa.moves += 1
        return True

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """The children follow; unless the request went to more than one endpoint, even if the
        last was the first again, since then the answer does not tell which of them is right."""
        if not self._proves(sa, answer, now):
            return
        if sa.moves != self._moves:
            sa.enqueue(type(self)(self._back), now)
        else:
            self._moved(sa, answer, now)

    def _proves(self, sa: IkeSa, answer: Contents, now: float) -> bool:
        cookie = answer.notify(NotifyType.COOKIE2)
        if cookie is not None and hmac.compare_digest(cookie.data, self._cookie):
            return True
        close(sa, f"{sa.peer} sent a wrong COOKIE2: somebody may stand between us", now)
        return False

    def _moved(self, sa: IkeSa, answer: Contents, now: float) -> None:
        sa.proven = sa.remote
        if sa.sending and sa.sends_to != sa.remote:
            sa.ctx.log("info", f"{sa.peer} is at {sa.remote[0]} port {sa.remote[1]} now")
            sa.send_all()


class UpdateAddresses(RouteCheck):
    """UPDATE_SA_ADDRESSES: the addresses of this very message are those to use (§3.5)."""

    def request(self, sa: IkeSa, now: float) -> Contents:
        """The update, what NATs there are, and a cookie for the peer's side of the way."""
        asks = super().request(sa, now)
        asks.notifies[:0] = [
            Notify(NotifyType.UPDATE_SA_ADDRESSES),
            *natd.notifies(sa.spi_i, sa.spi_r, sa.remote, sa.ctx.random),
            *addresses(sa),
        ]
        return asks

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """Done; or again, if there was another change meanwhile."""
        error = answer.error()
        if self._moves != sa.moves:
            once(sa, UpdateAddresses(self._back), now)
        elif error is not None:
            sa.ctx.log("warning", f"{sa.peer} does not follow us: {error.name}")
            if self.gave_up(sa):
                once(sa, UpdateAddresses(), now)
        else:
            super().answered(sa, answer, now)

    def _moved(self, sa: IkeSa, answer: Contents, now: float) -> None:
        sa.learn_nat(answer)
        super()._moved(sa, answer, now)


class Announce(RouteCheck):
    """A follower's new address list, from its new address (§3.6)."""

    def request(self, sa: IkeSa, now: float) -> Contents:
        """All our addresses but the one that this message comes from."""
        asks = super().request(sa, now)
        asks.notifies[:0] = addresses(sa)
        return asks


def once(sa: IkeSa, task: RouteCheck, now: float) -> None:
    """Queues ``task`` unless its like waits already."""
    if not any(type(waiting) is type(task) for waiting in sa.queue):
        sa.enqueue(task, now)


# --- What the owner and the network say -------------------------------------------------------


def we_moved(sa: IkeSa, now: float) -> None:
    """Our own endpoint has changed: the peer learns it from a message that comes from there. By
    relay we are where we were, at our host id: only the home agent has to know."""
    if sa.is_relayed:
        resend(sa, now)
        return
    sa.moves += 1
    resend(sa, now)
    if sa.mobike:
        once(sa, UpdateAddresses() if sa.leads else Announce(), now)


def peer_moved(sa: IkeSa, remote: Endpoint, now: float, *, proven: bool = False) -> None:
    """An authenticated packet of the peer came from ``remote``, or its owner says so, who may have
    a proof of his own."""
    if proven:
        sa.proven = remote
    if sa.remote == remote:
        return
    sa.remote = remote
    sa.moves += 1
    resend(sa, now)
    if sa.mobike and sa.leads:
        once(sa, UpdateAddresses(), now)


def resend(sa: IkeSa, now: float) -> None:
    """A request that waits for its answer goes to where the peer is now, at once."""
    if sa.window.outstanding is not None:
        sa.ctx.send(sa.window.outstanding.data, sa.remote)
        sa.window.outstanding.due = now + sa.ctx.settings.retransmit_first


def detours(sa: IkeSa) -> tuple[Endpoint, ...]:
    """Where else a request that stays unanswered goes: to all places where the peer is looked for,
    and to one of its other addresses, in turns."""
    outstanding = sa.window.outstanding
    if not (sa.mobike and sa.is_established) or outstanding is None:
        return ()
    others = [endpoint for endpoint in sa.peer_addresses if endpoint != sa.remote]
    turn = outstanding.repeats - SILENT_REPEATS
    one = (others[turn % len(others)],) if others and turn >= 0 else ()
    return (*sa.elsewhere, *one)


def search(sa: IkeSa, endpoints: tuple[Endpoint, ...]) -> None:
    """The peer is silent: what waits for its answer goes to all of these at once, besides. The one
    that it answers from is then proven like any other."""
    fresh = [e for e in endpoints if e not in (sa.remote, *sa.elsewhere) and acceptable(e)]
    if not (sa.mobike and sa.is_established) or sa.window.outstanding is None:
        return
    sa.elsewhere = (*sa.elsewhere, *fresh)[:MAX_ADDRESSES]
    for endpoint in fresh:
        sa.window.outstanding.repeats += 1
        sa.moves += 1  # the answer proves none of them, wherever it seems to come from
        sa.ctx.send(sa.window.outstanding.data, endpoint)


def answered_from(sa: IkeSa, source: Endpoint, now: float) -> None:
    """A verified answer came; from another address of the peer's, if only a detour led there."""
    elsewhere, sa.elsewhere = sa.elsewhere, ()
    if not sa.mobike or not sa.is_established:
        return
    if source == sa.remote or source not in (*sa.peer_addresses, *elsewhere):
        return
    sa.ctx.log("info", f"{sa.peer} answers at {source[0]} alone")
    back, sa.remote = sa.remote, source
    sa.moves += 1
    once(sa, UpdateAddresses(back) if sa.leads else RouteCheck(back), now)


def look_at_nat(sa: IkeSa, answer: Contents, now: float) -> None:
    """The NAT before us has changed its mapping: the peer must send elsewhere (§3.8)."""
    if sa.mobike and sa.leads and sa.learn_nat(answer):
        sa.moves += 1
        once(sa, UpdateAddresses(), now)


# --- The peer's requests ----------------------------------------------------------------------


def respond(
    sa: IkeSa, request: Contents, remote: Endpoint, now: float
) -> tuple[list[Notify], RouteCheck | None]:
    """What an INFORMATIONAL request about addresses is answered with, and what is asked once
    the answer is on its way."""
    answer: list[Notify] = []
    cookie = request.notify(NotifyType.COOKIE2)
    if cookie is not None and len(cookie.data) in _COOKIES:
        answer.append(Notify(NotifyType.COOKIE2, cookie.data))
    if not sa.mobike:
        return answer, None
    update = request.notify(NotifyType.UPDATE_SA_ADDRESSES) is not None
    listed = _read_addresses(sa, request)
    refusal = _refusal(sa, request, remote) if update or listed else None
    if refusal is not None:
        sa.ctx.log("warning", f"{sa.peer} may not be at {remote[0]} port {remote[1]}: {refusal}")
        return [*answer, refusal.notify()], None
    if request.notify(NotifyType.NAT_DETECTION_DESTINATION_IP) is not None:
        answer += natd.notifies(sa.spi_i, sa.spi_r, remote, sa.ctx.random)
        sa.learn_nat(request)
    follows = update and not sa.leads
    if remote == sa.remote == sa.sends_to or not (follows or (listed and sa.leads)):
        return answer, None
    if remote != sa.remote:
        sa.remote = remote
        sa.moves += 1
        resend(sa, now)  # the check waits behind what was asked where the peer is no more
    return answer, RouteCheck(sa.sends_to) if follows else UpdateAddresses(sa.sends_to)


def _refusal(sa: IkeSa, request: Contents, remote: Endpoint) -> RefusedError | None:
    if not acceptable(remote):
        return RefusedError(NotifyType.UNACCEPTABLE_ADDRESSES, "no host can be there")
    forbidden = request.notify(NotifyType.NO_NATS_ALLOWED)
    if forbidden is not None and not _is_untranslated(sa, forbidden.data, remote):
        return RefusedError(NotifyType.UNEXPECTED_NAT_DETECTED, "it wants no NAT, but there is one")
    return None


def _is_untranslated(sa: IkeSa, data: bytes, remote: Endpoint) -> bool:
    """NO_NATS_ALLOWED: source and destination as the peer sees them (§4.2.6)."""
    size = (len(data) - 4) // 2
    if size not in (4, 16) or len(data) != 2 * size + 4:
        return False
    source = (data[:size], int.from_bytes(data[-4:-2], "big"))
    target = (data[size : 2 * size], int.from_bytes(data[-2:], "big"))
    ours = [(ip_address(_bare(e)).packed, e[1]) for e in sa.ctx.locals]
    return source == (ip_address(_bare(remote)).packed, remote[1]) and target in ours
