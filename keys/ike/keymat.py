"""Key material of the IKE SA and its CHILD_SAs (RFC 7296 §2.13 to §2.18).

::

    prf+(K,S) = T1|T2|…   T1 = prf(K, S|01)   Tn = prf(K, T(n-1)|S|n)
    SKEYSEED  = prf(Ni|Nr, g^ir)                              first exchange
    SKEYSEED  = prf(SK_d(old), g^ir|Ni|Nr)                    rekey, with the old SA's prf
    {SK_d|SK_ei|SK_er|SK_pi|SK_pr} = prf+(SKEYSEED, Ni|Nr|SPIi|SPIr)
    SKEYSEED(n) = prf(SK_d(n-1), SK(n)|Ni|Nr)                 additional key exchange n
    KEYMAT    = prf+(SK_d, [g^ir]|Ni|Nr)                      a CHILD_SA
    …of a rekey with additional key exchanges: g^ir|Ni|Nr|SK(1)|…|SK(n) (RFC 9370 §2.2.4)

SK_ai and SK_ar are absent because all our ciphers are AEADs; each SK_e is a cipher key followed
by its 4-octet salt (RFC 5282 §7.1).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field, replace

SALT_OCTETS = 4

_HASH = {"prfsha256": "sha256", "prfsha384": "sha384"}
_CIPHER_OCTETS = {"aes128gcm16": 16, "aes256gcm16": 32, "chacha20poly1305": 32}


@dataclass(frozen=True, slots=True)
class Prf:
    """HMAC with SHA-256 or SHA-384 (RFC 4868), by strongSwan's name for it."""

    name: str

    @property
    def octets(self) -> int:
        """Output length, which is also the preferred key length."""
        return hashlib.new(_HASH[self.name]).digest_size

    def __call__(self, key: bytes, data: bytes) -> bytes:
        """prf(key, data)."""
        return hmac.digest(key, data, _HASH[self.name])

    def plus(self, key: bytes, seed: bytes, octets: int) -> bytes:
        """prf+(key, seed), the first ``octets`` of it; at most 255 blocks (RFC 7296 §2.13)."""
        assert octets <= 255 * self.octets
        stream = block = b""
        count = 0
        while len(stream) < octets:
            count += 1
            block = self(key, block + seed + bytes([count]))
            stream += block
        return stream[:octets]


def cipher_key_octets(suite: str) -> int:
    """Cipher key and salt of one direction (RFC 4106 §8.1, RFC 7634 §2)."""
    return _CIPHER_OCTETS[suite] + SALT_OCTETS


@dataclass(frozen=True, slots=True, repr=False)
class IkeKeys:
    """The secrets of one IKE SA. ``ei``/``er`` are key and salt of the two directions."""

    prf: Prf
    suite: str
    d: bytes
    ei: bytes
    er: bytes
    pi: bytes
    pr: bytes


@dataclass(frozen=True, slots=True)
class Nonces:
    """The two nonces of one exchange."""

    i: bytes
    r: bytes

    @property
    def both(self) -> bytes:
        """Ni | Nr."""
        return self.i + self.r

    @property
    def lowest(self) -> bytes:
        """The lower of the two, octet by octet, a prefix being lower (RFC 7296 §2.8.1)."""
        return min(self.i, self.r)


def skeyseed(prf: Prf, nonces: Nonces, shared: bytes) -> bytes:
    """SKEYSEED of IKE_SA_INIT (RFC 7296 §2.14)."""
    return prf(nonces.both, shared)


def skeyseed_rekey(old: IkeKeys, nonces: Nonces, shared: bytes, more: bytes = b"") -> bytes:
    """SKEYSEED of an IKE SA rekey: the prf is the old SA's (RFC 7296 §2.18). ``more`` are the
    secrets of additional key exchanges."""
    return old.prf(old.d, shared + nonces.both + more)


def updated(keys: IkeKeys, nonces: Nonces, shared: bytes, spi_i: bytes, spi_r: bytes) -> IkeKeys:
    """All keys after one more key exchange in IKE_INTERMEDIATE (RFC 9370 §2.2.2)."""
    seed = skeyseed_rekey(keys, nonces, shared)
    return ike_keys(keys.prf, keys.suite, seed, nonces, spi_i, spi_r)


def mixed_with_ppk(keys: IkeKeys, ppk: bytes) -> IkeKeys:
    """The keys with a post-quantum pre-shared key in them (RFC 8784 §3)."""
    octets = keys.prf.octets
    d, pi, pr = (keys.prf.plus(ppk, key, octets) for key in (keys.d, keys.pi, keys.pr))
    return replace(keys, d=d, pi=pi, pr=pr)


def ike_keys(
    prf: Prf, suite: str, seed: bytes, nonces: Nonces, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """All keys of an IKE SA (RFC 7296 §2.14)."""
    cipher = cipher_key_octets(suite)
    sizes = (prf.octets, cipher, cipher, prf.octets, prf.octets)
    stream = prf.plus(seed, nonces.both + spi_i + spi_r, sum(sizes))
    parts: list[bytes] = []
    for size in sizes:
        parts.append(stream[:size])
        stream = stream[size:]
    d, ei, er, pi, pr = parts
    return IkeKeys(prf, suite, d, ei, er, pi, pr)


@dataclass(frozen=True, slots=True)
class ChildKeys:
    """Key and salt of the two ESP SAs of one CHILD_SA, by who sends."""

    initiator: bytes = field(repr=False)
    responder: bytes = field(repr=False)


def child_keys(
    keys: IkeKeys, suite: str, nonces: Nonces, shared: bytes = b"", more: bytes = b""
) -> ChildKeys:
    """KEYMAT of a CHILD_SA: first what the initiator of its exchange sends with (§2.17)."""
    octets = cipher_key_octets(suite)
    stream = keys.prf.plus(keys.d, shared + nonces.both + more, 2 * octets)
    return ChildKeys(stream[:octets], stream[octets:])
