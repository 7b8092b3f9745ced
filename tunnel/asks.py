"""Is that host id really yours? What the IKE responder asks before a peer gets an SA.

A peer has proven its name with IKE; its host id must be the one that the zone (a fresh word, if
we know none or another) or the configuration gives that name. A host may reach us faster than its
new records do, so a mismatch is looked up again a few times while the exchange waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address

from fastpath.types import Endpoint
from tunnel.core import Core
from tunnel.peers import Peer


@dataclass(slots=True)
class _Ask:
    ticket: int
    name: str
    claimed: IPv6Address
    until: float
    retries: list[float]  # delays that are left
    again_at: float | None = None


class Asks:
    """Questions that wait for the zone. Bounded by ``NodeSettings.asks``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._asks: dict[int, _Ask] = {}

    def ask(self, ticket: int, name: str, claimed: IPv6Address, remote: Endpoint = ("", 0)) -> None:
        """``name`` is proven; may it have ``claimed``? What comes from ``remote`` through a home
        agent comes from the host of that id, and speaks for no other (I10, I22)."""
        core = self._core
        if remote[0] in core.relayed and remote[0] != str(claimed):
            reason = f"{name} claims {claimed}, and its home agent knows it as {remote[0]}"
            self._refuse(ticket, reason)
            return
        name = name.lower()
        peer, label = core.peers.named(name), core.peers.label_of(name)
        if core.ending:
            self._refuse(ticket, "this host is ending")
        elif peer is not None and peer.host_id == claimed:
            self._authorise(ticket, peer)
        elif peer is not None and peer.static and claimed.is_unspecified:
            # It names no single host id: what it offers is narrowed to its own (RFC 7296 §2.9).
            self._authorise(ticket, peer)
        elif peer is not None and peer.static:
            reason = f"{name} claims {claimed}; the configuration says {peer.host_id}"
            self._refuse(ticket, reason)
        elif label is None or core.zone is None or name == core.identity.name:
            self._refuse(ticket, f"{name} is no peer of this host")
        elif len(self._asks) >= core.settings.asks:
            self._refuse(ticket, "too many unknown peers at once")
        else:
            until = core.now + core.settings.ask_wait
            retries = list(core.settings.ask_retries)
            self._asks[ticket] = _Ask(ticket, name, claimed, until, retries)
            core.look_up(label)

    def records_came(self, peer: Peer) -> None:
        """The zone spoke of ``peer``."""
        for ask in [ask for ask in self._asks.values() if ask.name == peer.name]:
            if peer.host_id == ask.claimed:
                del self._asks[ask.ticket]
                self._authorise(ask.ticket, peer)
            else:
                self._later(ask, f"{ask.name} claims {ask.claimed}; the zone says {peer.host_id}")

    def lookup_failed(self, label: str, reason: str) -> None:
        """The zone knows no such host, or could not be asked."""
        name = f"{label.lower()}.{self._core.identity.domain}"
        for ask in [ask for ask in self._asks.values() if ask.name == name]:
            self._later(ask, reason)

    def _later(self, ask: _Ask, reason: str) -> None:
        if ask.again_at is not None:
            return
        if ask.retries:
            ask.again_at = self._core.now + ask.retries.pop(0)
            return
        del self._asks[ask.ticket]
        self._refuse(ask.ticket, reason)

    def _authorise(self, ticket: int, peer: Peer) -> None:
        core = self._core
        policy = core.policy(peer)
        core.ike_said(core.ike.authorise(ticket, policy, core.now))

    def _refuse(self, ticket: int, reason: str) -> None:
        core = self._core
        core.log("warning", f"a peer was refused: {reason}")
        core.ike_said(core.ike.refuse(ticket, reason, core.now))

    def advance(self) -> None:
        """Asks the zone again where that is due, and refuses what waited too long."""
        core = self._core
        for ask in list(self._asks.values()):
            if ask.until <= core.now:
                del self._asks[ask.ticket]
                self._refuse(ask.ticket, f"the zone did not confirm the host id of {ask.name}")
            elif ask.again_at is not None and ask.again_at <= core.now:
                ask.again_at = None
                label = core.peers.label_of(ask.name)
                assert label is not None
                core.look_up(label)

    def timers(self) -> list[float]:
        """When something is due."""
        asks = self._asks.values()
        return [min(ask.until, ask.again_at or ask.until) for ask in asks]
