"""Asking a peer behind a NAT to open its way towards us: both send at once, told by the zone.

::

    we, who want the peer                 zone                      the peer
    IKE_SA_INIT ──────────────────────────────────────────> its NAT drops it, ours is open now
    TXT at <peer>._call: who, where ────> │ ──── pushed ───────────> removes the message
                                          <── keepalives, a few ───  its NAT is open now, too
    IKE_SA_INIT again ────────────────────────────────────> comes in

What stands in the zone comes from a host of the account, since only its key writes there. All that
a call can do is to make us send a few single octets to an endpoint, or begin a tunnel to a host of
the account; the tunnel itself is made, and proven, by IKE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import dns.name
import dns.rdatatype

from discovery.texts import Change, read_message
from discovery.types import Changed
from fastpath.types import Endpoint
from tunnel.commands import SendKeepalive
from tunnel.core import Core
from tunnel.journal import What
from tunnel.outside import DEPENDENT
from tunnel.peers import Peer
from tunnel.pending import Bucket

CALL = "_call"
TICKET = "call"  # of changes in the zone
BEHIND = "nat="
"""Begins the TXT string of a host that no router opens a port for: how its NAT maps follows."""

PAUSES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)  # seconds before each keepalive towards a caller
PER_SECOND = 8  # calls that are heeded
AT_ONCE = 32  # callers that are being met
_LONGEST = 200  # octets of a call

_TXT = int(dns.rdatatype.TXT)


@dataclass(slots=True)
class _Meeting:
    """Keepalives that are still to be sent to a caller."""

    left: int
    at: float


class Calls:
    """Calls of ours to peers, and of theirs to us."""

    def __init__(
        self, core: Core, random: Callable[[int], bytes], met: Callable[[str, Endpoint], None]
    ) -> None:
        self._core, self._random, self._met = core, random, met
        self._heeded = Bucket(PER_SECOND)
        self._meetings: dict[Endpoint, _Meeting] = {}
        self._made: dict[str, bytes] = {}  # by peer's label, until they are taken back
        label, domain = core.identity.label, core.identity.domain
        self._prefix = f"{label}.{CALL}"
        self._own = dns.name.from_text(f"{self._prefix}.{domain}") if label and domain else None

    def start(self) -> None:
        """Hear those who call us."""
        core = self._core
        if core.zone is not None and self._own is not None:
            core.zone_said(core.zone.subscribe(self._own, _TXT, core.now, core.unix))

    # --- Ours -------------------------------------------------------------------------------

    def call(self, peer: Peer) -> None:
        """Ask ``peer`` to meet us, if it is behind a NAT, and we have something to tell it."""
        core = self._core
        ours = next((one for one in core.endpoints if ":" not in one[0]), None)
        if peer.label is None or core.zone is None or ours is None or not is_behind(peer):
            return
        if peer.label in self._made:
            self.ended(peer)
        nonce = self._random(4).hex()
        words = f"1 {core.identity.label} {ours[0]} {ours[1]} {nonce}".encode()
        self._made[peer.label] = words
        core.explain(peer, What.CALL, "it is asked through the zone to send towards us", at=ours)
        self._change(Change(f"{peer.label}.{CALL}", words, add=True))

    def ended(self, peer: Peer) -> None:
        """The attempt is over: take the call back, should the peer not have."""
        words = self._made.pop(peer.label or "", None)
        if words is not None:
            self._change(Change(f"{peer.label}.{CALL}", words))

    # --- Theirs -----------------------------------------------------------------------------

    def heard(self, change: Changed) -> bool:
        """Take a change at a subscribed name; false if it is not about calls to us."""
        if change.rdtype != _TXT or change.name != self._own:
            return False
        for rdata in change.added:
            words = read_message(rdata)
            if words is None or len(words) > _LONGEST:
                continue
            self._change(Change(self._prefix, words))
            caller = _read(words)
            if caller is not None and self._heeded.allows(self._core.now):
                self._meet(*caller)
        return True

    def advance(self) -> None:
        """Sends the keepalives that are due."""
        now = self._core.now
        for endpoint, meeting in list(self._meetings.items()):
            if meeting.at > now:
                continue
            self._core.emit(SendKeepalive(endpoint))
            meeting.left -= 1
            if meeting.left:
                meeting.at = now + PAUSES[-meeting.left]
            else:
                del self._meetings[endpoint]

    def timers(self) -> list[float]:
        """When something is due."""
        return [meeting.at for meeting in self._meetings.values()]

    # --- Inside -----------------------------------------------------------------------------

    def _meet(self, label: str, endpoint: Endpoint) -> None:
        core = self._core
        if endpoint in core.endpoints or len(self._meetings) >= AT_ONCE:
            return
        core.log("info", f"{label} calls", endpoint=f"{endpoint[0]}:{endpoint[1]}")
        if (peer := core.peers.labelled(label)) is not None:
            core.explain(peer, What.CALL, "it asked through the zone: we send to it", to=endpoint)
        self._meetings[endpoint] = _Meeting(len(PAUSES), core.now)
        self.advance()
        self._met(label, endpoint)

    def _change(self, change: Change) -> None:
        core = self._core
        if core.zone is not None:
            core.zone_said(core.zone.change_texts(TICKET, (change,), core.now, core.unix))


def is_behind(peer: Peer) -> bool:
    """Whether the peer's records say that its way in is only what its NAT left open."""
    return any(one.startswith(BEHIND) for one in peer.info)


def mapping_of(peer: Peer) -> str:
    """How the peer's NAT maps, as it published it; empty where it is not behind one."""
    return next((one.removeprefix(BEHIND) for one in peer.info if one.startswith(BEHIND)), "")


def _read(words: bytes) -> tuple[str, Endpoint] | None:
    """Who calls and where from, or ``None`` for anything that is no call of version 1."""
    try:
        version, label, address, port, _ = words.decode("ascii").split(" ")
        where, number = ip_address(address), int(port)
    except ValueError:
        return None
    if version != "1" or not 0 < number < 65536 or where.is_multicast or where.is_loopback:
        return None
    if where.is_unspecified or where.is_link_local:
        return None
    return label, (str(where), number)


def is_hopeless(ours: str, peer: Peer) -> bool:
    """Whether the two NATs meet only if one of them lets everybody in: one takes another port for
    every destination, so that the other cannot know which to let in."""
    theirs = mapping_of(peer)
    return bool(ours and theirs) and DEPENDENT in (ours, theirs)


def why_not_direct(ours: str, peer: Peer) -> str:
    """Why a peer behind a NAT could not be met; empty where NATs do not say."""
    theirs = mapping_of(peer)
    if not theirs:
        return ""
    if not is_hopeless(ours, peer):
        return f"{peer.name} is behind a NAT and did not come towards us in time"
    both = (f"{peer.name}'s NAT", theirs), ("our NAT", ours)
    hard = [who for who, kind in both if kind == DEPENDENT]
    which = f"{' and '.join(hard)} {'takes' if len(hard) == 1 else 'take'}"
    return (
        f"there is no direct path to {peer.name}: both of us are behind NATs, and {which} another "
        "port for every destination (symmetric)"
    )


def explain(ours: str, peer: Peer) -> str:
    """The same, of one that is not reached at all: what to do about it is said, too."""
    cause = why_not_direct(ours, peer)
    if not cause:
        return ""
    whose = "one" if is_hopeless(ours, peer) else "its"
    fix = f"switch on PCP, NAT-PMP or UPnP in {whose} router, or forward a UDP port there"
    relay = (
        "none of its home agents relays between us"
        if peer.home_agents
        else "or let a host that both of us reach be a home agent ([home_agent] in its file)"
    )
    return f"{cause}; {fix}; {relay}"
