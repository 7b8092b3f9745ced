"""A TSIG key as other servers' tools write it down.

Three forms are read: that of ``tsig-keygen`` and named.conf, ``key "NAME" { algorithm ALGORITHM;
secret "BASE64"; };``, that of ``nsupdate -y``, ``[ALGORITHM:]NAME:BASE64``, and ``NAME BASE64``.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from typing import Final

import dns.exception
import dns.name

from discovery.types import TsigKey

_USUAL: Final = "hmac-sha256"
_KNOWN: Final = frozenset(("hmac-sha224", _USUAL, "hmac-sha384", "hmac-sha512"))
_BIND: Final = re.compile(r'\s*key\s+"?([^\s"{]+)"?\s*\{(.*?)\}\s*;?\s*', re.DOTALL)
_ENTRY: Final = re.compile(r'\s*(algorithm|secret)\s+"?([^\s";]+)"?\s*;')
_COMMENT: Final = re.compile(r"/\*.*?\*/|(?m:(?:^|\s)(?://|#)[^\n]*)", re.DOTALL)


class KeyFileError(Exception):
    """The text is no key that can be used; says why, without any of it."""


def parse(text: str) -> TsigKey:
    """Return the key that a key file holds. Raises :exc:`KeyFileError`."""
    text = _COMMENT.sub("", text).strip()
    if found := _BIND.fullmatch(text):
        entries = dict(_ENTRY.findall(found[2]))
        return _key(found[1], entries.get("secret", ""), entries.get("algorithm", _USUAL))
    parts = re.split(r"[:\s]+", text)
    if len(parts) == 2:
        return _key(parts[0], parts[1], _USUAL)
    if len(parts) == 3:
        return _key(parts[1], parts[2], parts[0])
    raise KeyFileError("no key is in it; write it as tsig-keygen does")


def _key(name: str, secret: str, algorithm: str) -> TsigKey:
    algorithm = algorithm.lower().rstrip(".")
    if algorithm not in _KNOWN:
        raise KeyFileError(f"its algorithm is none of {', '.join(sorted(_KNOWN))}")
    try:
        octets = b64decode(secret, validate=True)
        owner = dns.name.from_text(name).canonicalize().to_text()
    except (Error, ValueError):
        raise KeyFileError("its secret is not base64") from None
    except dns.exception.DNSException:
        raise KeyFileError("its name is not the name of a key") from None
    if not octets:
        raise KeyFileError("it has no secret")
    return TsigKey(owner, octets, algorithm)
