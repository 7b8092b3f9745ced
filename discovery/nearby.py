"""What a host calls out on its local network when there is no rendezvous, and who understands it.

Multicast DNS (RFC 6762) carries ``<instance>._autotunnel._udp.local`` with a TXT record::

    s0=… s1=…    base64 of   nonce (12 octets) | AES-256-GCM of the message below

The instance is random for each call, and the message (label, host id, target name, endpoints and
the time) is sealed under a key of the account's own, so that strangers on the network learn that
somebody uses autotunnel here, and neither who nor which account nor the same machine again
(decision 0045). What opens was made by a host of the account; that it is *there* is proven by IKE,
as for every endpoint. A message is good for :data:`FRESH` seconds around its time.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from discovery import records as words
from discovery.types import Endpoint, HostRecords

SERVICE_TYPE: Final = "_autotunnel._udp.local."
FRESH: Final = 86_400
"""Seconds. Clocks of hosts without a network may be off; an old call only leads to where nobody is,
which IKE finds out."""

MAX_ENDPOINTS: Final = 8
_MAX_SEALED: Final = 1024  # octets of the base64 text
_PART: Final = 240  # characters of one string: a TXT string has at most 255 octets with its key
_NONCE: Final = 12
_PADDED: Final = 64  # octets: the length of a label is not to be read from outside
_ADDITIONAL: Final = b"autotunnel/1 nearby"


class NearbyError(ValueError):
    """What was called out cannot be sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """One host's call: its records, with more endpoints than the zone has, and the unix time."""

    records: HostRecords
    unix: int


def seal(call: Call, key: bytes, random: Callable[[int], bytes]) -> dict[str, str]:
    """Return the strings of the TXT record. ``key`` has 32 octets. Raises :exc:`NearbyError`."""
    said = call.records
    text = json.dumps(
        [
            *(said.label, str(said.host_id), said.target),
            [list(one) for one in said.endpoints[:MAX_ENDPOINTS]],
            call.unix,
        ],
        separators=(",", ":"),
    ).encode()
    text += b" " * (-len(text) % _PADDED)
    nonce = random(_NONCE)
    sealed = b64encode(nonce + AESGCM(key).encrypt(nonce, text, _ADDITIONAL)).decode("ascii")
    if len(sealed) > _MAX_SEALED:
        raise NearbyError("the host's name and endpoints are too long to be called out")
    return {
        f"s{number}": sealed[at : at + _PART]
        for number, at in enumerate(range(0, len(sealed), _PART))
    }


def unseal(strings: Mapping[str, str], key: bytes, domain: str, unix: int) -> Call | None:
    """Read the strings of a TXT record that anybody may have sent; ``None``: not of our account,
    too old, or malformed."""
    sealed = ""
    for number in range(_MAX_SEALED // _PART + 1):
        sealed += strings.get(f"s{number}", "")
    if not sealed or len(sealed) > _MAX_SEALED:
        return None
    try:
        octets = b64decode(sealed, validate=True)
        text = AESGCM(key).decrypt(octets[:_NONCE], octets[_NONCE:], _ADDITIONAL)
        label, host_id, target, endpoints, sent = json.loads(text)
        places: tuple[Endpoint, ...] = tuple(
            (str(ip_address(host)), int(port)) for host, port in endpoints[:MAX_ENDPOINTS]
        )
        said = HostRecords(str(label).lower(), IPv6Address(host_id), str(target), places)
        words.host_name(said.label, domain)
        words.target_name(said.target, domain)
        usable = all(0 < port < 65536 for _, port in places) and abs(unix - int(sent)) <= FRESH
    except (ValueError, TypeError, RecursionError, OverflowError, InvalidTag):
        return None
    return Call(said, int(sent)) if usable and places else None
