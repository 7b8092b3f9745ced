"""Answers to UPDATEs that came already: retransmissions get the same answer, replays do nothing.

A signed UPDATE stays valid for its fudge (RFC 8945 §10, 300 s). Without memory, an eavesdropper on
plain UDP or TCP could send it again within that time and so put back records that a later UPDATE
has replaced. The same octets are therefore answered from here, once carried out, until TSIG itself
rejects them as too old.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Final

MAX_ENTRIES: Final = 1024


class AnsweredUpdates:
    """The answers to the last UPDATEs of one account, at most ``MAX_ENTRIES`` of them."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()

    def find(self, wire: bytes, unix: int) -> bytes | None:
        """Return the answer that this very message got, with the message's present ID."""
        self._expire(unix)
        entry = self._answers.get(key_of(wire))
        return None if entry is None else wire[:2] + entry[1][2:]

    def remember(self, wire: bytes, answer: bytes, valid_until: int, unix: int) -> None:
        """Keep the answer until ``valid_until`` (unix seconds), when TSIG refuses the message."""
        self._expire(unix)
        self._answers[key_of(wire)] = (valid_until, answer)
        if len(self._answers) > MAX_ENTRIES:
            self._answers.popitem(last=False)

    def _expire(self, unix: int) -> None:
        # Oldest first; fudges differ little, so that what lies behind a young entry can wait.
        while self._answers:
            key, (valid_until, _) = next(iter(self._answers.items()))
            if valid_until >= unix:
                return
            del self._answers[key]


def key_of(wire: bytes) -> bytes:
    """Return what two transmissions of one signed message have in common, and no two messages."""
    # Without the message ID: TSIG digests the Original ID instead (RFC 8945 §4.2).
    return sha256(wire[2:]).digest()
