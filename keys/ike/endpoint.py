"""IkeEndpoint: all IKE SAs of this host behind one door (RFC 7296).

Datagrams find their SA by our own SPI and never by address (§2.6). Everything here routes; what
the messages say is in the files of the exchanges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from keys.ike import create_child, dispatch, groups, ike_auth, lifetimes, mobike, proof, sa_init
from keys.ike.certificates import Certification
from keys.ike.child import Child
from keys.ike.context import Context
from keys.ike.errors import IkeError
from keys.ike.export import WiresharkTables, wireshark_tables
from keys.ike.groups import Encapsulate
from keys.ike.header import NO_SPI, Exchange, Header, HeaderError, decode_header
from keys.ike.informational import Liveness, close, delete_child
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents, PayloadType, decode_chain, decode_contents
from keys.ike.sa import ATTEMPTS, IkeSa, SaState, plain_message
from keys.ike.settings import IkeSettings
from keys.ike.types import (
    EVERYTHING,
    ChildLifetime,
    ChildPolicy,
    Command,
    Endpoint,
    IkeFailed,
    PeerPolicy,
    Ppk,
    SaView,
    Traffic,
)

__all__ = ["IkeEndpoint", "IkeSettings"]

_EXCHANGES = frozenset(Exchange)
_HINTED_TRIES = 2


class IkeEndpoint:
    """A pure IKEv2 endpoint, initiator and responder; every method returns commands.

    ``local_name`` is our ID_FQDN. ``secret_for(name)`` gives the pre-shared key for a peer, or
    None if we know no such peer; ``certification`` says which peers prove themselves with a
    certificate instead; ``ppks`` are post-quantum keys that are mixed in, by peer. ``random(n)``
    gives n unpredictable octets, and ``encapsulate`` seals a secret to an ML-KEM key. ``now`` is
    monotonic seconds everywhere. Peer names are compared in lower case.
    """

    def __init__(
        self,
        *,
        local_name: str,
        secret_for: Callable[[str], bytes | None],
        random: Callable[[int], bytes],
        settings: IkeSettings | None = None,
        certification: Certification | None = None,
        encapsulate: Encapsulate = groups.encapsulate,
        ppks: Mapping[str, Ppk] | None = None,
    ) -> None:
        self._ctx = Context(
            local_name,
            secret_for,
            random,
            settings or IkeSettings(),
            certification,
            encapsulate,
            ppks,
        )

    # --- what the owner wants ---

    def connect(self, name: str, policy: PeerPolicy, remote: Endpoint, now: float) -> list[Command]:
        """Begins an IKE SA and a child with ``name``; ends in ``PeerUp`` or ``IkeFailed``.

        Nothing happens if there is a child already; an IKE SA that has lost its child gets a new
        one. Called again with another endpoint while nobody has answered, it lets the endpoints
        race (RFC 8305 in spirit): the same message goes to all of them, and the first that answers
        is talked with. Where somebody has answered who is not proven yet, a second attempt begins.
        """
        name = name.lower()
        standing = self._ctx.current(name)
        attempts = [sa for sa in self._ctx.named(name) if sa.state in ATTEMPTS]
        open_one = next((sa for sa in attempts if sa.answered_at is None), None)
        known = any(sa.remote == remote for sa in attempts)
        if standing is not None:
            if standing.active_child() is None and not standing.queue:
                standing.policy = policy
                standing.enqueue(create_child.CreateChild(), now)
        elif open_one is not None:
            sa_init.race(open_one, remote, now)
        elif known or len(attempts) >= self._ctx.settings.sas_per_peer:
            pass
        elif (reason := proof.stranger(self._ctx, name)) is not None:
            self._ctx.emit(IkeFailed(name, reason))
        else:
            sa_init.begin(self._ctx, name, policy, remote, now)
        return self._ctx.take()

    def heard_at(self, name: str) -> float | None:
        """When something fresh and authenticated last came from ``name``; ``None`` where no IKE SA
        stands."""
        sa = self._ctx.current(name.lower())
        return None if sa is None else sa.last_heard

    def answered(self, name: str) -> dict[Endpoint, float]:
        """Where our attempts to reach ``name`` were answered, and when; empty as long as there is
        one that nobody has answered. None of these is proven to be the peer yet."""
        attempts = [sa for sa in self._ctx.named(name.lower()) if sa.state in ATTEMPTS]
        found = {sa.remote: sa.answered_at for sa in attempts}
        return {at: when for at, when in found.items() if when} if all(found.values()) else {}

    def search(self, name: str, endpoints: tuple[Endpoint, ...], now: float) -> list[Command]:
        """``name`` is silent: it is asked for a sign of life where it was and at all of these at
        once. It has moved to the one that it answers from as soon as that is proven (§3.7 of
        RFC 4555); ``InstallOutbound`` tells. Peers without MOBIKE are asked where they were."""
        sa = self._ctx.current(name.lower())
        if sa is not None:
            lifetimes.check(sa, now)
            mobike.search(sa, endpoints)
        return self._ctx.take()

    def authorise(self, ticket: int, policy: PeerPolicy, now: float) -> list[Command]:
        """Answers ``AskPeer``: the peer may have what ``policy`` says. Late answers do nothing."""
        sa = self._ctx.asks.get(ticket)
        if sa is not None:
            ike_auth.authorise(sa, policy, now)
        return self._ctx.take()

    def refuse(self, ticket: int, reason: str, now: float) -> list[Command]:
        """Answers ``AskPeer``: no. The peer learns AUTHENTICATION_FAILED, the log the reason."""
        sa = self._ctx.asks.get(ticket)
        if sa is not None:
            ike_auth.refuse(sa, reason, now)
        return self._ctx.take()

    def probe(self, name: str, now: float) -> list[Command]:
        """Asks ``name`` for a sign of life; ends in ``ProbeAnswered`` or ``PeerDown``.

        Without an IKE SA there is nobody to ask, and nothing happens.
        """
        sa = self._ctx.current(name.lower())
        if sa is not None:
            waiting = [task for task in (sa.task, *sa.queue) if isinstance(task, Liveness)]
            if waiting:
                waiting[0].report = True
            else:
                sa.enqueue(Liveness(report=True), now)
            lifetimes.wait(sa, now)
        return self._ctx.take()

    def rekey(self, name: str, now: float, spi: int | None = None) -> list[Command]:
        """Rekeys a CHILD_SA with ``name`` now: the one for everything, or that of ``spi``, which
        may be of either direction."""
        sa = self._ctx.current(name.lower())
        children = sa.active_children() if sa is not None else []
        for child in children:
            mine = spi in (child.sa.spi_in, child.sa.spi_out)
            if sa is not None and (mine if spi is not None else child.sa.traffic == EVERYTHING):
                create_child.rekey(sa, child, now)
        return self._ctx.take()

    def add(self, name: str, child: ChildPolicy, now: float) -> list[Command]:
        """Asks ``name`` for one more child, which is kept as long as the IKE SA, its successors
        included. It ends in ``InstallOutbound``; a refusal is a line of the log."""
        sa = self._ctx.current(name.lower())
        if sa is not None and sa.policy is not None:
            others = [one for one in sa.policy.more if one.traffic != child.traffic]
            sa.policy = replace(sa.policy, more=(*others, child))
            create_child.complete(sa, now)
        return self._ctx.take()

    def remove(self, name: str, traffic: Traffic, now: float) -> list[Command]:
        """Deletes the child with ``name`` for this traffic, and no other; it is not asked for
        again. What it carried goes with the others."""
        sa = self._ctx.current(name.lower())
        if sa is not None and sa.policy is not None:
            others = tuple(one for one in sa.policy.more if one.traffic != traffic)
            sa.policy = replace(sa.policy, more=others)
            for child in [c for c in sa.children.values() if c.sa.traffic == traffic]:
                delete_child(sa, child, now)
        return self._ctx.take()

    def close(self, name: str, now: float) -> list[Command]:
        """Deletes all SAs with ``name``: children at once; ``PeerDown`` when the peer has
        confirmed, or after a few seconds of silence."""
        self._close(name.lower(), now)
        return self._ctx.take()

    def close_all(self, now: float, but: Collection[str] = ()) -> list[Command]:
        """Closes the SAs with every peer, ``but`` these."""
        for name in sorted({sa.name for sa in self._ctx if sa.name is not None} - set(but)):
            self._close(name, now)
        return self._ctx.take()

    def _close(self, name: str, now: float) -> None:
        for sa in self._ctx.named(name):
            if sa.state is SaState.ASKING:
                ike_auth.refuse(sa, "this host is closing", now)
            else:
                close(sa, f"we closed the connection to {name}", now)

    # --- what the owner has seen ---

    def traffic(
        self, name: str, last_in: float | None, last_out: float | None, now: float
    ) -> list[Command]:
        """Says when ESP last came from and went to ``name`` (monotonic seconds, None never).

        Outgoing traffic that nothing answers for 30 s starts a liveness check (§2.4).
        """
        sa = self._ctx.current(name.lower())
        if sa is not None:
            if last_in is not None and last_in > sa.last_heard:
                sa.heard(last_in)
            if last_out is not None and last_out > sa.last_heard and sa.unanswered_since is None:
                sa.unanswered_since = last_out
            lifetimes.advance(sa, now)
        return self._ctx.take()

    def used(self, name: str, counts: Mapping[int, tuple[int, int]], now: float) -> list[Command]:
        """Says what the ESP SAs with ``name`` have carried so far: SPI, of either direction, to
        packets and octets. A child that has carried nearly all it may is rekeyed."""
        for sa in self._ctx.standing(name.lower()):
            for child in sa.children.values():
                for spi in (child.sa.spi_in, child.sa.spi_out):
                    if spi in counts:
                        child.used(*counts[spi], now)
            lifetimes.advance(sa, now)
        return self._ctx.take()

    def moved(
        self, name: str, remote: Endpoint, now: float, *, proven: bool = False
    ) -> list[Command]:
        """An authenticated packet of ``name`` came from ``remote``: IKE goes there from now on,
        and a request that waits for its answer goes there at once. ``proven``: the owner knows that
        it hears us there, so that data goes there, too."""
        for sa in self._ctx.named(name.lower()):
            if sa.state in (SaState.ESTABLISHED, SaState.CLOSING):
                mobike.peer_moved(sa, remote, now, proven=proven)
        return self._ctx.take()

    def move(self, endpoints: Iterable[Endpoint], now: float) -> list[Command]:
        """Our own outer endpoints have changed to these: every peer is told from there.

        SPIs, keys and host ids stay (RFC 4555). A peer without MOBIKE follows what it next gets
        from us, which is a sign of life asked for at once.
        """
        self._ctx.locals = tuple(endpoints)
        for sa in self._ctx:
            if sa.is_established:
                mobike.we_moved(sa, now)
                if not sa.mobike:
                    lifetimes.check(sa, now)
            elif sa.state is not SaState.CLOSING:
                sa.moved_early = True
        return self._ctx.take()

    def wall_clock(self, unix: int) -> None:
        """What the wall clock shows, in unix seconds: only certificates depend on it."""
        self._ctx.unix = unix

    def recheck(self, now: float) -> list[Command]:
        """The certification has changed, or time has passed: SAs with peers whose certificates
        have been revoked or have expired are closed."""
        for sa in self._ctx:
            reason = proof.still_proven(sa)
            if reason is None:
                continue
            if sa.state is SaState.ASKING:
                ike_auth.refuse(sa, reason, now)
            elif sa.state is SaState.ESTABLISHED:
                self._ctx.log("warning", f"closing the connection to {sa.name}: {reason}")
                close(sa, reason, now)
        return self._ctx.take()

    def set_local(self, endpoints: Iterable[Endpoint]) -> list[Command]:
        """Our own outer endpoints, so that the peer's NAT detection can be read (§2.23)."""
        self._ctx.locals = tuple(endpoints)
        return self._ctx.take()

    def set_inner(self, endpoints: Iterable[Endpoint]) -> list[Command]:
        """Our endpoints inside a NAT: a peer that sees us at one of them is inside, too."""
        self._ctx.inner = tuple(endpoints)
        return self._ctx.take()

    def orphan(self, spi: int, remote: Endpoint, now: float) -> list[Command]:
        """ESP with an SPI that we do not hold came from ``remote``: tells it so, at a limited
        rate (§1.5). To the other side it is a hint to look whether we still live."""
        header = Header(NO_SPI, NO_SPI, Exchange.INFORMATIONAL, 0, response=False, initiator=True)
        notify = Notify(NotifyType.INVALID_SPI, spi.to_bytes(4, "big"))
        data = plain_message(header, Contents(notifies=[notify]).encode())
        self._ctx.answer_stranger(data, remote, now)
        return self._ctx.take()

    # --- datagrams ---

    def receive(self, data: bytes, remote: Endpoint, now: float) -> list[Command]:
        """Takes one datagram, its non-ESP marker already stripped."""
        try:
            header = decode_header(data)
        except HeaderError:
            self._ctx.counters["malformed"] += 1
            return self._ctx.take()
        if header.major != 2:
            self._other_version(header, remote, now)
        elif header.exchange == Exchange.IKE_SA_INIT:
            self._receive_init(header, data, remote, now)
        elif header.exchange in _EXCHANGES:
            self._receive_protected(header, data, remote, now)
        else:
            self._ctx.counters["unknown_exchange"] += 1
        return self._ctx.take()

    def _other_version(self, header: Header, remote: Endpoint, now: float) -> None:
        self._ctx.counters["version"] += 1
        if header.major > 2 and not header.response:
            self._tell_stranger(header, NotifyType.INVALID_MAJOR_VERSION, remote, now)

    def _receive_init(self, header: Header, data: bytes, remote: Endpoint, now: float) -> None:
        if header.message_id != 0 or header.initiator == header.response:
            self._ctx.counters["malformed"] += 1
        elif header.response:
            sa = self._ctx.find(header.spi_i)
            if sa is not None:
                sa_init.take_answer(sa, header, data, remote, now)
            else:
                self._ctx.counters["unknown_spi"] += 1
        elif header.spi_r != NO_SPI or header.spi_i == NO_SPI:
            self._ctx.counters["malformed"] += 1
        else:
            sa_init.take_request(self._ctx, header, data, remote, now)

    def _receive_protected(self, header: Header, data: bytes, remote: Endpoint, now: float) -> None:
        if header.next_payload == PayloadType.NOTIFY:
            self._take_hint(header, data, remote, now)
            return
        ours, theirs = header.spi_i, header.spi_r
        if header.initiator:
            ours, theirs = theirs, ours
        sa = self._ctx.find(ours)
        if sa is not None and sa.initiator != header.initiator and sa.remote_spi == theirs:
            dispatch.receive(sa, header, data, remote, now)
            return
        echo = self._ctx.echoes.find(data, now)
        if echo is not None:
            self._ctx.send(echo, remote)
            return
        self._ctx.counters["unknown_spi"] += 1
        if not header.response and sa is None:
            self._tell_stranger(header, NotifyType.INVALID_IKE_SPI, remote, now)

    def _tell_stranger(
        self, header: Header, kind: NotifyType, remote: Endpoint, now: float
    ) -> None:
        """An unprotected answer to what no SA of ours can answer (§2.21.4, §2.5)."""
        answer = Header(
            header.spi_i,
            header.spi_r,
            header.exchange,
            header.message_id,
            response=True,
            initiator=not header.initiator,
        )
        data = plain_message(answer, Contents(notifies=[Notify(kind)]).encode())
        self._ctx.answer_stranger(data, remote, now)

    # --- hints ---

    def _take_hint(self, header: Header, data: bytes, remote: Endpoint, now: float) -> None:
        """An unprotected notification. Anybody can forge it: it makes us look, no more (§2.4)."""
        self._ctx.counters["hint"] += 1
        try:
            contents = decode_contents(decode_chain(header.next_payload, data[28:]))
        except IkeError:
            return
        if header.response and contents.notify(NotifyType.INVALID_IKE_SPI):
            spi = header.spi_r if header.initiator else header.spi_i
            self._look(self._ctx.find(spi), now)
        invalid = contents.notify(NotifyType.INVALID_SPI)
        if not header.response and invalid is not None:
            spi_out = int.from_bytes(invalid.data, "big")
            for sa in self._ctx:
                if sa.remote == remote and sa.child_by_outbound(spi_out) is not None:
                    self._look(sa, now)

    def _look(self, sa: IkeSa | None, now: float) -> None:
        if sa is None or not sa.is_established:
            return
        outstanding = sa.window.outstanding
        if isinstance(sa.task, Liveness) and outstanding is not None:
            # A living peer answers the first try; the hint only makes us wait for fewer.
            outstanding.tries_left = min(outstanding.tries_left, _HINTED_TRIES)
            outstanding.hinted = True
        elif now - sa.hinted_at >= self._ctx.settings.hint_interval:
            sa.hinted_at = now
            lifetimes.check(sa, now)

    # --- time and looks ---

    def advance(self, now: float) -> list[Command]:
        """Does what is due at ``now``."""
        for sa in self._ctx:
            if sa.state is not SaState.CLOSED:
                lifetimes.advance(sa, now)
        return self._ctx.take()

    def next_timer(self) -> float | None:
        """When ``advance`` should be called next, or None."""
        due = [timer for sa in self._ctx for timer in lifetimes.timers(sa)]
        earliest = min(due, default=None)
        return None if earliest == float("inf") else earliest

    def views(self) -> list[SaView]:
        """What ``status`` shows: one entry for each IKE SA that stands."""
        return [_view(sa) for sa in self._ctx if sa.is_established and sa.keys is not None]

    def behind_nat(self) -> set[str]:
        """The peers to which the way leads through a NAT of ours."""
        return {sa.name for sa in self._ctx if sa.behind_nat and sa.is_established and sa.name}

    def export_keys(self, name: str) -> WiresharkTables:
        """The keys of all SAs with ``name``, for one who is to see what is in their packets."""
        return wireshark_tables(self._ctx.named(name.lower()))

    def half_open(self) -> int:
        """How many strangers have begun and not proven who they are."""
        return self._ctx.half_open.total

    def counters(self) -> Counter[str]:
        """How many messages were dropped, by reason."""
        return Counter(self._ctx.counters)


def _view(sa: IkeSa) -> SaView:
    assert sa.keys is not None and sa.name is not None
    return SaView(
        name=sa.name,
        remote=sa.remote,
        initiator=sa.initiator,
        established_at=sa.established_at,
        encryption=sa.keys.suite,
        prf=sa.keys.prf.name,
        key_exchange="+".join((sa.group, *sa.additional)),
        authentication=sa.authentication,
        children=tuple(child.sa for child in sa.children.values()),
        rtt=sa.rtt,
        behind_nat=sa.behind_nat,
        peer_behind_nat=sa.peer_behind_nat,
        ppk=sa.ppk,
        fragmentation=sa.fragmentation,
        mobike=sa.mobike,
        rekey_at=sa.rekey_at,
        expires_at=sa.expires_at,
        lifetimes=tuple(_lifetime(child) for child in sa.children.values()),
    )


def _lifetime(child: Child) -> ChildLifetime:
    packets = octets = None
    if child.limits is not None:
        packets = max(0, child.limits.soft_packets - child.packets)
        octets = max(0, child.limits.soft_octets - child.octets)
    return ChildLifetime(child.sa.spi_in, child.rekey_at, child.expires_at, packets, octets)
