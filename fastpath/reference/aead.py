"""The AEADs of ESP: AES-GCM with a 16-octet ICV (RFC 4106) and ChaCha20-Poly1305 (RFC 7634).

Both take the same shape: nonce = 4-octet salt | 8-octet IV, a 16-octet tag behind the ciphertext.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from fastpath.types import SALT_OCTETS, Suite


class Aead:
    """One keyed AEAD. ``key`` is the cipher key followed by the salt (RFC 4106 §8.1).

    Raises :class:`ValueError` when the length is not the suite's.
    """

    def __init__(self, suite: Suite, key: bytes) -> None:
        if len(key) != suite.key_octets + SALT_OCTETS:
            raise ValueError(
                f"{suite} needs {suite.key_octets + SALT_OCTETS} octets of key and salt, "
                f"not {len(key)}"
            )
        cipher_key, self._salt = key[:-SALT_OCTETS], key[-SALT_OCTETS:]
        self._cipher: AESGCM | ChaCha20Poly1305 = (
            ChaCha20Poly1305(cipher_key) if suite is Suite.CHACHA20POLY1305 else AESGCM(cipher_key)
        )

    def seal(self, iv: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """Returns ciphertext | 16-octet ICV. ``iv`` is 8 octets and never used twice."""
        return self._cipher.encrypt(self._salt + iv, plaintext, associated)

    def open(self, iv: bytes, sealed: bytes, associated: bytes) -> bytes | None:
        """Returns the plaintext, or ``None`` when the ICV does not verify."""
        try:
            return self._cipher.decrypt(self._salt + iv, sealed, associated)
        except InvalidTag:
            return None
