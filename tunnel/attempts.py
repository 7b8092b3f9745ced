"""Making the tunnel on demand: zone, endpoint, IKE, SA, data (RFC 6281 §2; B48).

::

    packet or reach ─> back-off over? ─> records fresh? ─no─> lookup ─┐
          │ no                                │ yes                  v
          └─> unreachable, at once            └──────> candidates, racing each other ─> IKE
                                                                                   │
                         packets injected in order, waiters answered <── SA ──<────┤
                         ICMPv6 unreachable, the reason to status    <── none left ┘
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address

from fastpath.types import Endpoint
from tunnel.calls import Calls, explain, is_behind, is_hopeless
from tunnel.candidates import in_order
from tunnel.commands import Inject, NotReached, Pong, Reached
from tunnel.core import Core
from tunnel.journal import What
from tunnel.peers import Attempt, Peer, Waiter
from tunnel.pending import Bucket
from tunnel.pings import Pings


class Attempts:
    """All attempts under way, and all who wait for them."""

    def __init__(
        self,
        core: Core,
        pings: Pings,
        calls: Calls,
        relay: Callable[[Peer], None] = lambda _: None,
    ) -> None:
        self._relay = relay  # told of each attempt whose endpoints are being tried
        self._core = core
        self._calls = calls
        self._pings = pings
        self._late = Bucket(core.settings.late_per_second)

    # --- Who asks ---------------------------------------------------------------------------

    def packet(self, packet: bytes) -> None:
        """An inner packet without a flow: makes the tunnel, or says that it cannot be."""
        core = self._core
        if len(packet) < 40:  # an IPv6 header: the pump hands over nothing else
            return
        peer = core.peers.owner(IPv6Address(packet[24:40]))
        if peer is None or core.ending:
            core.refuse_packets([packet])
        elif peer.up:  # it left the pump just before the flow was set
            if self._late.allows(core.now):
                core.emit(Inject(packet))
        elif peer.attempt is None and core.now < peer.not_before:
            core.refuse_packets([packet])
        else:
            core.queues.put(peer.name, packet, core.now)
            self.begin(peer, "an application has a packet for it")

    def reach(self, ticket: int, name: str, *, ping: bool = False) -> None:
        """Somebody wants the tunnel to ``name``: answered at once, or when the attempt ends."""
        core = self._core
        full = core.peers.full_name(name)
        if full == core.identity.name:  # B48: our own host id needs no tunnel
            answer = Pong(ticket, 0.0) if ping else Reached(ticket, core.identity.host_id)
            core.emit(answer)
            return
        waiter = Waiter(ticket, ping, core.now + core.settings.wait)
        label = core.peers.label_of(full)
        peer = core.peers.named(full) or (core.peers.ensure(label) if label else None)
        if peer is None or core.ending:
            unknown = not core.ending and label is None
            self._decline(waiter, _no_such_peer(full, core, unknown), no_such_host=unknown)
        elif peer.up:
            self._accept(peer, waiter)
        elif peer.attempt is None and core.now < peer.not_before:
            wait = peer.not_before - core.now
            self._decline(waiter, f"{peer.reason or 'it failed'} (next attempt in {wait:.0f} s)")
        elif len(peer.waiters) >= core.settings.waiters:
            self._decline(waiter, f"too many wait for {peer.name} already; try again later")
        else:
            peer.waiters.append(waiter)
            self.begin(peer, "its name was asked for")

    # --- The attempt ------------------------------------------------------------------------

    def begin(self, peer: Peer, why: str) -> None:
        """Starts an attempt unless one is under way, or the tunnel stands, or it is too early.
        ``why``: who wants it, for ``explain``."""
        core = self._core
        if peer.up or peer.attempt is not None or core.ending or core.now < peer.not_before:
            return
        peer.attempt = Attempt(until=core.now + core.settings.attempt)
        core.explain(peer, What.WANTED, why)
        recent = peer.records_at is not None and core.now - peer.records_at <= core.settings.fresh
        if peer.static or recent or self._is_told(peer):
            self._to_candidates(peer)
        else:
            peer.attempt.looking = True
            assert peer.label is not None
            core.look_up(peer.label)

    def _is_told(self, peer: Peer) -> bool:
        """Whether the zone tells us of each change of its records, so that those we have are true;
        or cannot be asked, so that those we have must do."""
        zone = self._core.zone
        if zone is None or peer.host_id is None or not peer.endpoints:
            return False
        if zone.unreachable:
            return True
        told = peer.label in zone.watched and zone.step in ("push", "llq")
        known = peer.records_at is not None and peer.records_at > float("-inf")
        return told and known and not peer.failures

    def records_came(self, peer: Peer) -> None:
        """The zone's word on ``peer`` is in the table now."""
        if peer.attempt is not None and peer.attempt.looking:
            self._to_candidates(peer)

    def lookup_failed(self, peer: Peer, reason: str, *, no_such_host: bool) -> None:
        """The zone does not know ``peer``, or could not be asked."""
        if peer.attempt is None or not peer.attempt.looking:
            return
        if not no_such_host and peer.host_id is not None and peer.endpoints:
            peer.attempt.reasons.append(reason)
            self._to_candidates(peer)  # the zone is down: what it said last may still be right
        else:
            self._fail(peer, reason, no_such_host=no_such_host)

    def _to_candidates(self, peer: Peer) -> None:
        core, attempt = self._core, peer.attempt
        assert attempt is not None
        attempt.looking = False
        if peer.host_id is None:
            self._fail(peer, peer.reason or f"the zone names no usable host id for {peer.name}")
            return
        attempt.host_id, attempt.candidates = peer.host_id, in_order(core, peer)
        core.explain(
            peer, What.CANDIDATE, "its endpoints are tried in this order", at=attempt.candidates
        )
        if not attempt.candidates:
            attempt.reasons.append(f"the zone names no endpoint for {peer.name}: is it running?")
        if is_behind(peer):
            patience = (
                core.settings.hopeless if is_hopeless(core.mapping, peer) else core.settings.meeting
            )
            attempt.until = min(attempt.until, core.now + patience)
            self._calls.call(peer)
        self._next_candidate(peer)
        self._relay(peer)

    def _next_candidate(self, peer: Peer) -> None:
        """The next one joins the race; if there is none, all has been tried."""
        core, attempt = self._core, peer.attempt
        assert attempt is not None
        if not attempt.candidates and attempt.host_id not in (None, peer.host_id):
            self._to_candidates(peer)  # the peer restarted with another host id meanwhile
            return
        if not attempt.candidates:
            reasons = list(dict.fromkeys(attempt.reasons))
            self._fail(peer, "; ".join(reasons) or f"{peer.name} did not answer")
            return
        remote = attempt.candidates.pop(0)
        if remote not in attempt.tried:
            attempt.tried.append(remote)
        settings = core.settings
        attempt.next_at = core.now + (settings.head_start if attempt.candidates else settings.stall)
        core.explain(peer, What.CANDIDATE, "IKE begins there", at=remote)
        policy = core.policy(peer)
        core.ike_said(core.ike.connect(peer.name, policy, remote, core.now))

    def _go_on(self, peer: Peer) -> None:
        """The race is open: the next one joins. Somebody has answered: the others wait, until that
        one had its time to prove that it is the peer."""
        core, attempt = self._core, peer.attempt
        assert attempt is not None
        answered = core.ike.answered(peer.name)
        if answered:
            stalled_at = max(answered.values()) + core.settings.stall
            if core.now < stalled_at:
                attempt.next_at = stalled_at
                return
            again = [one for one in attempt.tried if one not in answered]
            attempt.candidates = list(dict.fromkeys((*again, *attempt.candidates)))
        if attempt.candidates:
            self._next_candidate(peer)
        else:
            attempt.next_at = core.now + core.settings.stall

    def ike_failed(
        self, peer: Peer, reason: str, remote: Endpoint | None = None, *, others: bool = False
    ) -> None:
        """IKE could not reach ``peer`` at the endpoints given so far; at ``remote`` somebody else
        answered, and so the race begins anew without it. ``others`` are being tried still."""
        attempt = peer.attempt
        if attempt is None or attempt.looking:
            return
        attempt.reasons.append(reason)
        self._core.explain(peer, What.FAILED, reason)
        if others:
            return
        if remote is not None:
            attempt.others.append(remote)
            again = [one for one in attempt.tried if one not in attempt.others]
            attempt.candidates = list(dict.fromkeys((*again, *attempt.candidates)))
        self._next_candidate(peer)

    # --- Its end ----------------------------------------------------------------------------

    def succeeded(self, peer: Peer) -> None:
        """The tunnel stands, whoever began it: what waits may go."""
        self._calls.ended(peer)
        peer.attempt, peer.reason, peer.failed = None, None, False
        peer.failures, peer.not_before = 0, float("-inf")
        self._core.emit(*(Inject(packet) for packet in self._core.queues.take(peer.name)))
        waiters, peer.waiters = peer.waiters, []
        for waiter in waiters:
            self._accept(peer, waiter)

    def _fail(self, peer: Peer, reason: str, *, no_such_host: bool = False) -> None:
        core, settings = self._core, self._core.settings
        self._calls.ended(peer)
        reason = explain(core.mapping, peer) or reason
        peer.attempt, peer.reason, peer.failed = None, reason, True
        wait = min(settings.backoff_cap, settings.backoff_first * 2 ** min(peer.failures, 16))
        peer.failures += 1
        peer.not_before = core.now + wait
        core.log("warning", f"{peer.name} cannot be reached: {reason}")
        core.explain(peer, What.FAILED, f"it cannot be reached: {reason}", again_in=f"{wait:.0f} s")
        self.give_up(peer, reason, no_such_host=no_such_host)

    def give_up(self, peer: Peer, reason: str, *, no_such_host: bool = False) -> None:
        """Tells all who wait for ``peer``, and the senders of its packets."""
        self._core.refuse_packets(self._core.queues.take(peer.name))
        waiters, peer.waiters = peer.waiters, []
        for waiter in waiters:
            self._decline(waiter, reason, no_such_host=no_such_host)

    def forgive(self, peer: Peer) -> None:
        """Something changed: the next attempt need not wait."""
        peer.failures, peer.not_before = 0, float("-inf")

    def _accept(self, peer: Peer, waiter: Waiter) -> None:
        assert peer.host_id is not None
        if waiter.ping:
            self._pings.start(peer, waiter.ticket)
        else:
            self._core.emit(Reached(waiter.ticket, peer.host_id))

    def _decline(self, waiter: Waiter, reason: str, *, no_such_host: bool = False) -> None:
        if waiter.ping:
            self._core.emit(Pong(waiter.ticket, None, reason))
        else:
            self._core.emit(NotReached(waiter.ticket, reason, no_such_host))

    # --- Time -------------------------------------------------------------------------------

    def advance(self) -> None:
        """Does what is due."""
        core = self._core
        core.refuse_packets(core.queues.expire(core.now))
        for peer in core.peers:
            attempt = peer.attempt
            if attempt is not None and attempt.until <= core.now:
                self._fail(
                    peer, "; ".join(attempt.reasons) or f"{peer.name} did not answer in time"
                )
            elif attempt is not None and (attempt.next_at or core.now + 1) <= core.now:
                self._go_on(peer)
            late = [waiter for waiter in peer.waiters if waiter.until <= core.now]
            peer.waiters = [waiter for waiter in peer.waiters if waiter not in late]
            for waiter in late:
                self._decline(waiter, f"{peer.name} did not answer in time")

    def timers(self) -> list[float]:
        """When something is due."""
        due = [] if (held := self._core.queues.next_timer()) is None else [held]
        for peer in self._core.peers:
            if peer.attempt is not None:
                due.append(peer.attempt.until)
                due += [] if peer.attempt.next_at is None else [peer.attempt.next_at]
            due += [waiter.until for waiter in peer.waiters]
        return due


def _no_such_peer(name: str, core: Core, unknown: bool) -> str:
    if core.ending:
        return "this host is ending"
    if unknown:
        where = f"a host of {core.identity.domain}" if core.identity.domain else "a peer"
        return f"{name} is not {where}; see `autotunnel status` for those that are"
    return f"{name} cannot be added: this host knows too many peers already"
