"""IntAuth: what AUTH says of the IKE_INTERMEDIATE exchanges before it (RFC 9242 §3.3.2).

::

    IntAuth_i(n) = prf(SK_pi(n), IntAuth_i(n-1) | A | P)      and alike for the responder's answers
    IntAuth      = IntAuth_i(N) | IntAuth_r(N) | message id of IKE_AUTH
    A = IKE header .. SK header, their lengths without IV, padding and tag    P = payloads in clear

SK_pi(n) and SK_pr(n) are the keys in force when exchange n begins. Fragments do not matter: the
message is taken as if it had been whole.
"""

from __future__ import annotations

from keys.ike.header import HEADER_OCTETS
from keys.ike.keymat import IkeKeys
from keys.ike.payloads import GENERIC, PayloadType


class IntAuth:
    """The running sums of one IKE SA that is being made."""

    __slots__ = ("_initiator", "_responder", "_rounds")

    def __init__(self) -> None:
        self._initiator = self._responder = b""
        self._rounds = 0

    def add(
        self, keys: IkeKeys, head: bytes, first: int, flags: int, chain: bytes, *, initiator: bool
    ) -> None:
        """Takes in a message of IKE_INTERMEDIATE of either side; ``head`` begins with its IKE
        header, or with that of its first fragment."""
        size = GENERIC.size + len(chain)
        length = (HEADER_OCTETS + size).to_bytes(4, "big")
        header = head[:16] + bytes([PayloadType.SK]) + head[17:24] + length
        octets = header + GENERIC.pack(first, flags, size) + chain
        if initiator:
            self._initiator = keys.prf(keys.pi, self._initiator + octets)
            self._rounds += 1
        else:
            self._responder = keys.prf(keys.pr, self._responder + octets)

    @property
    def octets(self) -> bytes:
        """What is appended to the octets that AUTH signs; nothing if there was no exchange."""
        if not self._rounds:
            return b""
        # IKE_SA_INIT has the id 0, and every exchange since then was one of ours.
        message_id = 1 + self._rounds
        return self._initiator + self._responder + message_id.to_bytes(4, "big")
