"""Names of transforms that we do not have but others offer (IANA, "IKEv2 Parameters").

Only for sentences: a person who reads what a peer offers can compare it with that peer's own
configuration, so that these are strongSwan's names.
"""

from __future__ import annotations

from typing import Final

_ENCRYPTION: Final = {
    2: "des",
    3: "3des",
    7: "blowfish{bits}",
    11: "null",
    12: "aes{bits}",
    13: "aes{bits}ctr",
    14: "aes{bits}ccm8",
    15: "aes{bits}ccm12",
    16: "aes{bits}ccm16",
    18: "aes{bits}gcm8",
    19: "aes{bits}gcm12",
    20: "aes{bits}gcm16",
    21: "aes{bits}gmac",
    23: "camellia{bits}",
}
_PRF: Final = {
    1: "prfmd5",
    2: "prfsha1",
    4: "prfaesxcbc",
    5: "prfsha256",
    6: "prfsha384",
    7: "prfsha512",
    8: "prfaescmac",
}
_INTEGRITY: Final = {
    1: "md5",
    2: "sha1",
    5: "aesxcbc",
    8: "aescmac",
    12: "sha256",
    13: "sha384",
    14: "sha512",
}
_GROUP: Final = {
    1: "modp768",
    2: "modp1024",
    5: "modp1536",
    14: "modp2048",
    15: "modp3072",
    16: "modp4096",
    17: "modp6144",
    18: "modp8192",
    19: "ecp256",
    20: "ecp384",
    21: "ecp521",
    25: "ecp192",
    26: "ecp224",
    28: "ecp256bp",
    29: "ecp384bp",
    30: "ecp512bp",
    31: "x25519",
    32: "x448",
}
_TYPES: Final = {1: _ENCRYPTION, 2: _PRF, 3: _INTEGRITY, 4: _GROUP}


def name(kind: int, ident: int, key_bits: int | None) -> str | None:
    """The name of transform ``ident`` of type ``kind``; None if nobody gave it one."""
    found = _TYPES.get(kind, {}).get(ident)
    return None if found is None else found.format(bits=key_bits or "")
