"""What was proven: who answered where (I19). Proofs outlive the process, in a file without secrets.

A proof says that the host of this *name* has received at this endpoint what nobody else could
read. The draft gives it no end. Ours has one, since addresses change hands: a month for an endpoint
that is a host's own, five minutes for one that a NAT made, which is never written to disk.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from ipaddress import ip_address
from typing import Any, Final

from fastpath.types import Endpoint
from tunnel.mobility.options import is_unicast

SCHEMA: Final = "autotunnel/proofs/v1"
MAX_FILE: Final = 2_097_152  # octets; a full table of the longest names takes 1.3 million
LIFE: Final = 30 * 86_400  # seconds
NAT_LIFE: Final = 300  # seconds; a mapping of RFC 4787 lives for two minutes of silence at least
PER_PEER: Final = 16  # networks that a host is seen in: home, work, a few more (I19)
PEERS: Final = 1024
_LONGEST_NAME: Final = 255


class ProofsError(ValueError):
    """The kept proofs are damaged; the text says what is wrong."""


class Proofs:
    """Proofs by peer's name, the least recently used first. ``unix`` is wall time in seconds."""

    def __init__(self, per_peer: int = PER_PEER, peers: int = PEERS) -> None:
        self._per_peer, self._limit = per_peer, peers
        self._peers: OrderedDict[str, OrderedDict[Endpoint, tuple[int, bool]]] = OrderedDict()

    def add(self, peer: str, endpoint: Endpoint, unix: int, nat: bool = False) -> bool:
        """``peer`` has answered at ``endpoint``; whether that changes what belongs on disk."""
        endpoints = self._peers.setdefault(peer, OrderedDict())
        self._peers.move_to_end(peer)
        known = endpoints.get(endpoint)
        endpoints[endpoint] = (unix + (NAT_LIFE if nat else LIFE), nat)
        endpoints.move_to_end(endpoint)
        while len(endpoints) > self._per_peer:
            endpoints.popitem(last=False)
        while len(self._peers) > self._limit:
            self._peers.popitem(last=False)
        stale = known is None or known[1] or known[0] < unix + LIFE // 2
        return not nat and stale

    def holds(self, peer: str, endpoint: Endpoint, unix: int) -> bool:
        """Whether it was proven, and not too long ago."""
        endpoints = self._peers.get(peer)
        return endpoints is not None and unix < endpoints.get(endpoint, (unix, False))[0]

    def drop(self, peer: str, endpoint: Endpoint) -> bool:
        """``peer`` does not answer there any more; whether that changes what belongs on disk."""
        _, nat = self._peers.get(peer, OrderedDict()).pop(endpoint, (0, True))
        return not nat

    def forget(self, peer: str) -> bool:
        """``peer`` is no peer any more; whether there was a proof."""
        return self._peers.pop(peer, None) is not None

    def __len__(self) -> int:
        return sum(len(endpoints) for endpoints in self._peers.values())

    # --- On disk ------------------------------------------------------------------------------

    def dump(self, unix: int) -> bytes:
        """The proofs that belong on disk, as JSON."""
        kept = {
            peer: [
                [*endpoint, until]
                for endpoint, (until, nat) in endpoints.items()
                if not nat and until > unix
            ]
            for peer, endpoints in self._peers.items()
        }
        peers = {peer: proofs for peer, proofs in kept.items() if proofs}
        return json.dumps({"schema": SCHEMA, "peers": peers}, indent=0).encode()

    def load(self, octets: bytes, unix: int) -> None:
        """Take over the proofs of a file that :meth:`dump` made; all, or none and
        :exc:`ProofsError`.

        A proof that would last longer than one that is made now is cut: the clock was wrong then.
        """
        if len(octets) > MAX_FILE:
            raise ProofsError("it is larger than any that this host writes")
        try:
            kept = json.loads(octets)
        except (ValueError, RecursionError):
            raise ProofsError("it is not JSON") from None
        if not isinstance(kept, dict) or kept.get("schema") != SCHEMA:
            raise ProofsError(f"it is not of the form {SCHEMA}")
        found = kept.get("peers")
        if not isinstance(found, dict):
            raise ProofsError("it has no peers")
        peers = list(found.items())[-self._limit :]
        read = {peer: self._read(peer, proofs, unix) for peer, proofs in peers}
        self._peers.update((peer, proofs) for peer, proofs in read.items() if proofs)

    def _read(self, peer: str, entries: Any, unix: int) -> OrderedDict[Endpoint, tuple[int, bool]]:
        if len(peer) > _LONGEST_NAME or not isinstance(entries, list):
            raise ProofsError("the proofs of a peer cannot be read")
        endpoints: OrderedDict[Endpoint, tuple[int, bool]] = OrderedDict()
        for entry in entries[-self._per_peer :]:
            endpoint, until = _endpoint(entry)
            if until > unix:
                endpoints[endpoint] = (min(until, unix + LIFE), False)
        return endpoints


def _endpoint(entry: Any) -> tuple[Endpoint, int]:
    try:
        address, port, until = entry
        endpoint = str(ip_address(str(address))), int(port)
        end = int(until)
    except (TypeError, ValueError, OverflowError):
        raise ProofsError("a proof cannot be read") from None
    if not is_unicast(endpoint):
        raise ProofsError(f"a proof is about {endpoint[0]}, where nobody can be")
    return endpoint, end
