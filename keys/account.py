"""The account: a domain, one secret, and the keys made from it (DESIGN "Keys").

The secret is 32 random octets. Each purpose has its own key, derived with HKDF-SHA256 (RFC 5869)
under a label of its own and bound to the domain, so that a key that leaks tells no other one.
RFC 6281 §7.3.1 took the domain's name itself as pre-shared key (B61); that is not copied.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_SIZE: Final = 32  # octets
KEY_SIZE: Final = 32  # octets of every derived key: the output of SHA-256 (RFC 8945 §8)

_TSIG_LABEL: Final = b"autotunnel/1 tsig"
_PSK_LABEL: Final = b"autotunnel/1 ike psk"
_NEARBY_LABEL: Final = b"autotunnel/1 nearby"
_INVITATION_LABEL: Final = b"autotunnel/1 invitation"
_RECORDING_LABEL: Final = b"autotunnel/1 recording"


class AccountSecretError(ValueError):
    """The text is not an account secret; the message says what is wrong with it."""


def new_secret(random: Callable[[int], bytes]) -> bytes:
    """Return a new account secret of 32 octets."""
    return random(SECRET_SIZE)


def encode_secret(secret: bytes) -> str:
    """Return the secret as base64 text without a newline, as it stands in its file."""
    if len(secret) != SECRET_SIZE:
        raise AccountSecretError(f"an account secret has {SECRET_SIZE} octets, not {len(secret)}")
    return b64encode(secret).decode("ascii")


def decode_secret(text: bytes) -> bytes:
    """Read the text of a secret file (one trailing newline is ignored).

    Raises :exc:`AccountSecretError`, whose message never shows the secret.
    """
    try:
        secret = b64decode(_chomp(text), validate=True)
    except binascii.Error:
        raise AccountSecretError("the text is not base64") from None
    if len(secret) != SECRET_SIZE:
        raise AccountSecretError(f"it holds {len(secret)} octets where {SECRET_SIZE} are expected")
    return secret


def _chomp(text: bytes) -> bytes:
    for ending in (b"\r\n", b"\n"):
        if text.endswith(ending):
            return text.removesuffix(ending)
    return text


@dataclass(frozen=True, slots=True)
class Account:
    """A domain (no trailing dot, compared without case) and its secret of 32 octets."""

    domain: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", self.domain.lower().rstrip("."))
        if len(self.secret) != SECRET_SIZE:
            raise AccountSecretError(
                f"an account secret has {SECRET_SIZE} octets, not {len(self.secret)}"
            )

    @property
    def tsig_name(self) -> str:
        """The TSIG key's name: the domain with a trailing dot, as Apple's clients name it."""
        return self.domain + "."

    @property
    def tsig_secret(self) -> bytes:
        """The TSIG key's secret, 32 octets (B58)."""
        return self._derive(_TSIG_LABEL)

    @property
    def psk(self) -> bytes:
        """The IKE pre-shared key of all hosts of the account, 32 octets."""
        return self._derive(_PSK_LABEL)

    @property
    def nearby_key(self) -> bytes:
        """What hosts call out on a local network is sealed with it; 32 octets (decision 0045)."""
        return self._derive(_NEARBY_LABEL)

    @property
    def recording_key(self) -> bytes:
        """Recordings of hosts of the account are sealed with keys made from it; 32 octets
        (decision 0052)."""
        return self._derive(_RECORDING_LABEL)

    def invitation_key(self, invitation_id: bytes, expires: int) -> bytes:
        """Return the key of one invitation, 32 octets. ``expires`` is unix seconds.

        Host and rendezvous derive it alike, so that inviting needs no network.
        """
        return self._derive(_INVITATION_LABEL, expires.to_bytes(8) + invitation_id)

    def _derive(self, label: bytes, context: bytes = b"") -> bytes:
        # The length before the domain keeps (label, domain, context) apart from any other triple.
        domain = self.domain.encode("ascii")
        info = label + b"\x00" + len(domain).to_bytes(2) + domain + context
        return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=info).derive(self.secret)
