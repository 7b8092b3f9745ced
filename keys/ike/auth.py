"""AUTH with a pre-shared key (RFC 7296 §2.15).

::

    InitiatorSignedOctets = RealMessage1 | Nr | prf(SK_pi, IDi')
    ResponderSignedOctets = RealMessage2 | Ni | prf(SK_pr, IDr')
    AUTH = prf( prf(secret, "Key Pad for IKEv2"), SignedOctets )

RealMessage is the sender's own IKE_SA_INIT message from its first SPI on, without any non-ESP
marker; of several requests (COOKIE, INVALID_KE_PAYLOAD) it is the last. The nonce is the other
side's. Certificates (RFC 7427) will stand beside this file and sign the same octets.
"""

from __future__ import annotations

import hmac

from keys.ike.keymat import Prf
from keys.ike.payloads import Identity

_KEY_PAD = b"Key Pad for IKEv2"


def signed_octets(
    prf: Prf, message: bytes, peer_nonce: bytes, sk_p: bytes, identity: Identity
) -> bytes:
    """What a side signs: its own message, the other's nonce, its identity under its SK_p."""
    return message + peer_nonce + prf(sk_p, identity.body)


def shared_key_mic(prf: Prf, secret: bytes, octets: bytes) -> bytes:
    """The AUTH data of method 2, "shared key message integrity code"."""
    return prf(prf(secret, _KEY_PAD), octets)


def verify_shared_key_mic(prf: Prf, secret: bytes, octets: bytes, received: bytes) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(shared_key_mic(prf, secret, octets), received)
