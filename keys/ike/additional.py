"""A series of additional key exchanges, one after the other (RFC 9370 §2.2).

The same for the first keys (IKE_INTERMEDIATE) and for rekeys (IKE_FOLLOWUP_KE): which methods were
chosen, in order, and the secret of each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from keys.ike.errors import InvalidSyntaxError
from keys.ike.groups import Encapsulate, PrivateKey, generate, respond
from keys.ike.payloads import KeyExchange
from keys.ike.proposals import METHOD, METHOD_NAMES, Additional
from keys.ike.settings import IkeSettings


def accepted(settings: IkeSettings) -> Additional:
    """The additional key exchanges that we accept."""
    methods = tuple(METHOD[name] for name in settings.additional)
    return Additional(methods, settings.additional_required)


def names(methods: Iterable[int]) -> tuple[str, ...]:
    """As ``status`` shows them."""
    return tuple(METHOD_NAMES[method] for method in methods)


class Rounds:
    """What is left to do of one series; ``more`` are its secrets so far, SK(1)|…|SK(n)."""

    __slots__ = ("_key", "_left", "more")

    def __init__(self, methods: Iterable[int] = ()) -> None:
        self._left = deque(methods)
        self._key: PrivateKey | None = None
        self.more = b""

    def __len__(self) -> int:
        return len(self._left)

    def ask(self, random: Callable[[int], bytes]) -> KeyExchange:
        """Our side of the next one, as initiator of the exchange."""
        self._key = generate(self._left[0], random)
        return KeyExchange(self._key.group, self._key.public)

    def take(self, ke: KeyExchange | None) -> bytes:
        """The secret, from the answer; raises InvalidSyntaxError."""
        assert self._key is not None
        self._check(ke)
        assert ke is not None
        secret, self._key = self._key.shared(ke.data), None
        return self._done(secret)

    def respond(
        self, ke: KeyExchange | None, random: Callable[[int], bytes], seal: Encapsulate
    ) -> tuple[KeyExchange, bytes]:
        """The answer to the next one, and its secret; raises InvalidSyntaxError."""
        self._check(ke)
        assert ke is not None
        public, secret = respond(ke.group, ke.data, random, seal)
        return KeyExchange(ke.group, public), self._done(secret)

    def _check(self, ke: KeyExchange | None) -> None:
        if ke is None or not self._left or ke.group != self._left[0]:
            raise InvalidSyntaxError("a key exchange other than the one that was agreed on")

    def _done(self, secret: bytes) -> bytes:
        self._left.popleft()
        self.more += secret
        return secret
