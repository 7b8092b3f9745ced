"""Invitations as the rendezvous sees them: one token, one joining host, once (decision 0004).

A token carries an invitation id, an expiry and the invitation key. The joining host signs one
question with that key::

    TSIG key  <id hex>-<expires, unix seconds>._invite.<domain>
    question  TXT <nonce, 32 hex digits>.<id hex>._invite.<domain>

The first nonce that comes binds the invitation, durably and before the answer; the same nonce may
ask again until the invitation expires (an answer can be lost), any other is refused in words. The
answer's TXT is the account secret, sealed for that key and nonce (:func:`seal`), in base64.

The rendezvous holds no list of invitations: it derives the key from id and expiry, so that
inviting needs no network. What it remembers is which ones were used.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

INVITE_LABEL = "_invite"
NONCE_SIZE = 16  # octets; 32 hex digits fit in one DNS label
MAX_ID_SIZE = 24  # octets; with the expiry the key's first label stays within 63 octets

_SEAL_LABEL = b"autotunnel/1 invitation seal"
# Each sealing key is made for one (invitation key, nonce) and seals one text, the account secret
# (another account secret makes another invitation key), so that a fixed GCM nonce is never reused
# for another text.
_GCM_NONCE = bytes(12)

_KEY_LABEL = re.compile(r"^([0-9a-f]{2,48})-([0-9]{1,12})$")
_NONCE_LABEL = re.compile(r"^[0-9a-f]{32}$")


class SealError(Exception):
    """The sealed account secret does not open: wrong key or nonce, or it was tampered with."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the TSIG key name of an invitation says: its id (octets) and expiry (unix seconds)."""

    identity: bytes
    expires: int


def key_name(invitation: Invitation, domain: str) -> str:
    """Return the TSIG key name of an invitation, with its trailing dot."""
    label = f"{invitation.identity.hex()}-{invitation.expires}"
    return f"{label}.{INVITE_LABEL}.{domain.rstrip('.')}."


def question_name(identity: bytes, nonce: bytes, domain: str) -> str:
    """Return the one name that an invitation may ask for, with its trailing dot."""
    return f"{nonce.hex()}.{identity.hex()}.{INVITE_LABEL}.{domain.rstrip('.')}."


def parse_key_label(label: str) -> Invitation | None:
    """Read the first label of an invitation's key name, or ``None`` if it is none."""
    found = _KEY_LABEL.match(label.lower())
    if found is None or len(found[1]) % 2:
        return None
    return Invitation(bytes.fromhex(found[1]), int(found[2]))


def parse_nonce_label(label: str) -> bytes | None:
    """Read the nonce label of an invitation's question, or ``None`` if it is none."""
    lowered = label.lower()
    return bytes.fromhex(lowered) if _NONCE_LABEL.match(lowered) else None


def _sealing_key(invitation_key: bytes, nonce: bytes) -> AESGCM:
    derive = HKDF(algorithm=SHA256(), length=32, salt=nonce, info=_SEAL_LABEL)
    return AESGCM(derive.derive(invitation_key))


def _bound_to(domain: str) -> bytes:
    return domain.rstrip(".").lower().encode()


def seal(account_secret: bytes, invitation_key: bytes, nonce: bytes, domain: str) -> str:
    """Seal the account secret for the holder of ``invitation_key`` who asked with ``nonce``.

    AES-256-GCM under HKDF-SHA256(invitation key, salt = nonce, label), bound to the domain;
    returned in base64, as it stands in the TXT record.
    """
    sealed = _sealing_key(invitation_key, nonce).encrypt(
        _GCM_NONCE, account_secret, _bound_to(domain)
    )
    return b64encode(sealed).decode("ascii")


def open_sealed(text: str, invitation_key: bytes, nonce: bytes, domain: str) -> bytes:
    """Open what :func:`seal` made. Raises :exc:`SealError`."""
    try:
        sealed = b64decode(text, validate=True)
        return _sealing_key(invitation_key, nonce).decrypt(_GCM_NONCE, sealed, _bound_to(domain))
    except (ValueError, InvalidTag) as error:
        raise SealError("the sealed account secret does not open with this invitation") from error
