"""The three ways in which a message can be wrong; each says what the peer is told."""

from __future__ import annotations

from keys.ike.notify import Notify, NotifyType


class IkeError(Exception):
    """A message that we do not accept. The text is a sentence for the log, never for the wire."""

    def notify(self) -> Notify:
        """What the peer is told, if it may be told anything."""
        return Notify(NotifyType.INVALID_SYNTAX)


class InvalidSyntaxError(IkeError):
    """Lengths, counts or values that no correct peer sends (RFC 7296 §2.21, §3.10.1)."""


class UnsupportedCriticalError(IkeError):
    """A payload that we do not know and that the peer marked critical (RFC 7296 §2.5)."""

    def __init__(self, kind: int) -> None:
        super().__init__(f"the peer sent a critical payload of unknown type {kind}")
        self.kind = kind

    def notify(self) -> Notify:
        """The offending type, in one octet."""
        return Notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, bytes([self.kind]))


class RefusedError(IkeError):
    """A well-formed request that we answer with an error notification.

    ``sentence`` says which side wanted what; ``esp_spi`` names the SA where the notification must.
    """

    def __init__(self, kind: int, sentence: str, data: bytes = b"", esp_spi: bytes = b"") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self._notify = Notify(kind, data, 3 if esp_spi else 0, esp_spi)

    def notify(self) -> Notify:
        """The notification that the request is answered with."""
        return self._notify
