"""The issuer: which signing requests are granted, and what has been issued and revoked.

A join is granted if the request is sealed with the join key of an invitation of this CA that has
not expired and was not used for another key, and if nobody else holds a valid certificate for the
name that it asks for: an invitation lets a host in, not into another host's place. A renewal is
granted to the holder of the key of a valid certificate of ours, for the same name. The *ledger* is
the issuer's memory; its owner keeps it beside the CA key.

An account may have several issuers, which share what they know through the zone: each certificate
as a *voucher*, signed by the CA, and the revocation list, whose serial numbers every issuer takes
over before it publishes a list of its own. So no list ever lacks what another issuer has revoked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from keys import ca, signing
from keys.ca import Authority, AuthorityError, Revocations, Wanted
from keys.ike.certificates import UNREADABLE, quietly
from keys.signing import Granted, JoinRequest, Refused, RenewRequest, SigningError

KEEP: Final = 86400  # seconds for which an entry outlives its certificate

_VOUCHER: Final = b"autotunnel/1 issued\0"
_SIGNATURE: Final = 64  # octets, Ed25519
_LAST_SECOND: Final = 253402300799  # of the year 9999: no certificate can say a later one
_SERIAL_BITS: Final = 159  # RFC 5280 §4.1.2.2: 20 octets, positive


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate: serial number and key (SHA-256) in hex, ``expires`` in unix seconds."""

    serial: str
    name: str
    key: str
    expires: int
    invitation: str = ""


@dataclass(slots=True)
class Ledger:
    """What has been issued; which serial numbers were revoked when; the number of the list."""

    issued: list[Entry] = field(default_factory=list)
    revoked: dict[str, int] = field(default_factory=dict)
    number: int = 0

    def to_json(self) -> str:
        """As it stands in its file."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Reads its file. Raises ValueError."""
        try:
            found: dict[str, Any] = json.loads(text)
            issued = [_entry(fields) for fields in found["issued"]]
            revoked = {_serial(one): _when(when) for one, when in found["revoked"].items()}
            return cls(issued, revoked, _whole(found["number"]))
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a ledger ({error})") from None

    def merge(self, other: Ledger) -> None:
        """Takes over what ``other`` knows besides: two processes may write the same file."""
        self.issued += [entry for entry in other.issued if entry not in self.issued]
        self.revoked = {**other.revoked, **self.revoked}
        self.number = max(self.number, other.number)

    def learn(self, entry: Entry, unix: int) -> bool:
        """Takes over what another issuer has issued; whether it was news."""
        if entry in self.issued or entry.expires + KEEP <= unix:
            return False
        self.issued.append(entry)
        return True

    def take_list(self, found: Revocations, unix: int) -> bool:
        """Takes over a list that stands in the zone. ``number`` is then that of the list, or a
        higher one if the ledger knows of more; whether anything has changed."""
        before = dict(self.revoked), self.number
        for serial, when in found.times.items():
            if self._is_remembered(f"{serial:x}", when, unix):
                self.revoked.setdefault(f"{serial:x}", when)
        more = {int(serial, 16) for serial in self.revoked} - found.serials
        self.number = max(self.number, found.number + bool(more))
        return before != (self.revoked, self.number)

    def forget(self, unix: int) -> None:
        """Drops what has expired by itself."""
        self.issued = [entry for entry in self.issued if entry.expires + KEEP > unix]
        self.revoked = {
            serial: when
            for serial, when in self.revoked.items()
            if self._is_remembered(serial, when, unix)
        }

    def _is_remembered(self, serial: str, when: int, unix: int) -> bool:
        """Of a certificate that we do not know all that is sure is that it was valid once."""
        known = any(entry.serial == serial for entry in self.issued)
        return known or when + ca.HOST_LIFETIME + KEEP > unix


def entry_of(text: bytes) -> Entry:
    """The entry that a voucher's JSON says. Raises ValueError."""
    try:
        serial, name, key, expires, invitation = json.loads(text)
        return _entry(
            {
                "serial": serial,
                "name": name,
                "key": key,
                "expires": expires,
                "invitation": invitation,
            }
        )
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not an entry ({error})") from None


def _entry(fields: dict[str, Any]) -> Entry:
    entry = Entry(**fields)
    _serial(entry.serial)
    _when(entry.expires)
    if not all(isinstance(text, str) for text in (entry.name, entry.key, entry.invitation)):
        raise ValueError("an entry's name, key or invitation is no text")
    return entry


def _serial(text: Any) -> str:
    """A serial number as we write it; another spelling of it would never be found again."""
    number = int(text, 16)
    if f"{number:x}" != text or not 0 < number < 1 << _SERIAL_BITS:
        raise ValueError(f"{text!r} is no serial number")
    return str(text)


def _when(value: Any) -> int:
    if _whole(value) > _LAST_SECOND:
        raise ValueError(f"{value} is no time")
    return int(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no whole number")
    return value


class Issuer:
    """Answers signing requests with ``authority``; ``lifetime`` is that of certificates, in s."""

    def __init__(
        self,
        authority: Authority,
        ledger: Ledger,
        random: Callable[[int], bytes],
        lifetime: int = ca.HOST_LIFETIME,
    ) -> None:
        self.authority = authority
        self.ledger = ledger
        self._random = random
        self._lifetime = lifetime

    def answer(self, octets: bytes, unix: int) -> bytes:
        """The answer to a request. Raises :exc:`SigningError` if it deserves none."""
        asked = signing.request_id(octets)
        parsed = signing.read_request(octets)
        if isinstance(parsed, RenewRequest):
            return signing.write_answer(self._renew(parsed, unix), None, asked, self._random)
        key = self.authority.join_key(parsed.identity, parsed.expires)
        inside = signing.open_join(parsed, key)
        return signing.write_answer(self._join(parsed, inside, unix), key, asked, self._random)

    def enroll(self, wanted: Wanted, unix: int, invitation: str = "") -> x509.Certificate:
        """Issues and remembers. Raises :exc:`AuthorityError`."""
        self.ledger.forget(unix)
        made = self.authority.issue(wanted, unix, self._random, self._lifetime)
        serial = f"{made.serial_number:x}"
        entry = Entry(serial, wanted.name, _hash(wanted.key), ca.expires(made), invitation)
        self.ledger.issued.append(entry)
        return made

    def revoke(self, name: str, unix: int) -> list[str]:
        """Revokes all certificates of a host, or the one of that serial number (hex).

        Returns their serial numbers; none if nothing of that name is valid and known here.
        """
        lowered = name.lower()
        found = [
            entry.serial
            for entry in self.ledger.issued
            if lowered in (entry.name, entry.serial) and entry.serial not in self.ledger.revoked
        ]
        if found:
            self.ledger.revoked |= dict.fromkeys(found, unix)
            self.ledger.number += 1
        return found

    def revocations(self, unix: int) -> bytes | None:
        """The present list, or None while nothing was ever revoked."""
        if not self.ledger.number:
            return None
        serials = {int(serial, 16): when for serial, when in self.ledger.revoked.items()}
        return self.authority.revocations(serials, self.ledger.number, unix)

    # --- Vouchers ---------------------------------------------------------------------------------

    def voucher(self, entry: Entry) -> bytes:
        """``entry`` as other issuers take it over: 64 octets of signature by the CA, then JSON."""
        said = (entry.serial, entry.name, entry.key, entry.expires, entry.invitation)
        text = json.dumps(said, separators=(",", ":")).encode()
        return self.authority.key.sign(_VOUCHER + text) + text

    def read_voucher(self, octets: bytes) -> Entry:
        """An entry of another issuer. Raises :exc:`SigningError` if our CA did not sign it."""
        signature, text = octets[:_SIGNATURE], octets[_SIGNATURE:]
        try:
            self.authority.key.public_key().verify(signature, _VOUCHER + text)
            return entry_of(text)
        except (InvalidSignature, ValueError):
            raise SigningError("a voucher in the zone is not one of the account's CA") from None

    # --- Inside -----------------------------------------------------------------------------------

    def _join(self, asked: JoinRequest, inside: bytes, unix: int) -> Granted | Refused:
        if unix > asked.expires:
            return Refused("the invitation has expired; make a new one with `autotunnel invite`")
        try:
            wanted = ca.read_request(inside)
        except AuthorityError as error:
            return Refused(str(error))
        invitation, key = asked.identity.hex(), _hash(wanted.key)
        for entry in self.ledger.issued:
            if entry.invitation == invitation and (entry.key, entry.name) != (key, wanted.name):
                return Refused("this invitation was used already; make a new one")
            if entry.name == wanted.name and entry.key != key and self._is_valid(entry, unix):
                label = wanted.name.partition(".")[0]
                return Refused(
                    f"{wanted.name} is another host already; choose another --name, or revoke it "
                    f"first: autotunnel revoke {label}"
                )
        return self._grant(wanted, unix, invitation)

    def _renew(self, asked: RenewRequest, unix: int) -> Granted | Refused:
        try:
            wanted = ca.read_request(asked.request)
            with quietly():
                present = x509.load_der_x509_certificate(asked.certificate)
                key = present.public_key()
        except (AuthorityError, *UNREADABLE):
            return Refused("the renewal request cannot be read")
        if not ca.issued_by(present, self.authority.certificate):
            return Refused("the present certificate was not issued by this CA")
        if f"{present.serial_number:x}" in self.ledger.revoked:
            return Refused("the present certificate was revoked; join again with a new invitation")
        if unix > ca.expires(present):
            return Refused("the present certificate has expired; join again with a new invitation")
        same_key = isinstance(key, Ed25519PublicKey) and _hash(key) == _hash(wanted.key)
        names = present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if not same_key or wanted.name not in names.get_values_for_type(x509.DNSName):
            return Refused("the renewal is for another name or key than the present certificate")
        return self._grant(wanted, unix)

    def _grant(self, wanted: Wanted, unix: int, invitation: str = "") -> Granted | Refused:
        try:
            made = self.enroll(wanted, unix, invitation)
        except AuthorityError as error:
            return Refused(str(error))
        own = self.authority.certificate.public_bytes(Encoding.DER)
        return Granted(made.public_bytes(Encoding.DER), own)

    def _is_valid(self, entry: Entry, unix: int) -> bool:
        return entry.expires > unix and entry.serial not in self.ledger.revoked


def _hash(key: Ed25519PublicKey) -> str:
    return sha256(key.public_bytes_raw()).hexdigest()


__all__ = ["Entry", "Issuer", "Ledger", "SigningError"]
