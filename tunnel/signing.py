"""Certificates over the zone: renewing ours, honouring revocations, and, as an issuer, signing.

::

    _sign.<domain>           TXT  signing requests, of hosts that join and of hosts that renew
    <id>._sign.<domain>      TXT  the answer to one request; its asker removes it
    _revoked.<domain>        TXT  the revocation list, signed by the CA
    _issued.<domain>         TXT  a voucher for each valid certificate, among issuers

An issuer looks into ``_sign`` often while an invitation of its own is open, else seldom. Polling is
a stopgap here as it is for hosts (B42): LLQ will tell of changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from discovery.texts import Change
from discovery.types import TextsChanged, TextsFound
from keys import ca, signing
from keys.ca import AuthorityError, Revocations
from keys.ike.certificates import CertificateError, Trust, check
from keys.issuer import Issuer, Ledger
from keys.signing import Granted, Refused, SigningError
from tunnel.commands import Keep
from tunnel.core import Core
from tunnel.credentials import Credentials

INBOX = "_sign"
REVOKED = "_revoked"
ISSUED = "_issued"
MAX_CHANGES = 32  # of vouchers, in one update
MAX_ANSWERS = 64  # of ours that nobody has fetched yet


def answer_name(asked: str) -> str:
    """Where the answer to request ``asked`` (:func:`keys.signing.request_id`) lies."""
    return f"{asked}.{INBOX}"


class Signing:
    """This host's dealings with certificates; without credentials it has none."""

    def __init__(
        self,
        core: Core,
        credentials: Credentials | None,
        issuer: Issuer | None,
        random: Callable[[int], bytes],
    ) -> None:
        self._core = core
        self._credentials = credentials
        self.issuer = issuer
        self._random = random
        active = core.zone is not None and credentials is not None and credentials.own is not None
        first = 0.0 if active else None
        self._revocations_at: float | None = first
        self._renewal_at: float | None = first
        self._inbox_at: float | None = first if issuer is not None else None
        self._recheck_at: float | None = None if credentials is None else 0.0
        self._invited_until = 0  # unix seconds
        self._asked: str | None = None  # our renewal request
        self._request = b""
        self._answers: dict[str, float] = {}  # request answered → when the answer is removed
        self._problem: str | None = None

    # --- Events -----------------------------------------------------------------------------

    def invited(self, until: int) -> None:
        """An invitation of this issuer is open until ``until`` (unix seconds)."""
        self._invited_until = max(until, self._invited_until)
        if self._inbox_at is not None:
            self._inbox_at = self._core.now

    def ledger_changed(self, ledger: Ledger) -> None:
        """Somebody else wrote the issuer's ledger: ``autotunnel revoke``."""
        if self.issuer is not None:
            self.issuer.ledger.merge(ledger)
            self._revocations_at = self._core.now

    def handle(self, answer: TextsFound | TextsChanged) -> None:
        """Takes what the zone client says."""
        if isinstance(answer, TextsChanged):
            if answer.reason:
                self._trouble(f"a message could not be left in the zone: {answer.reason}")
            return
        if answer.reason:
            return  # the client tells of its troubles; what was asked is asked again
        if answer.prefix == INBOX:
            self._inbox(answer.messages)
        elif answer.prefix == ISSUED:
            self._issued(answer.messages)
        elif answer.prefix == REVOKED:
            self._revoked(answer.messages)
        elif self._asked is not None and answer.prefix == answer_name(self._asked):
            self._answered(answer.messages)

    # --- Revocation -------------------------------------------------------------------------

    def _revoked(self, lists: tuple[bytes, ...]) -> None:
        core, credentials = self._core, self._credentials
        assert credentials is not None
        for octets in lists:
            try:
                newer = credentials.take_revocations(octets)
            except AuthorityError as error:
                self._trouble(f"a revocation list in the zone is ignored: {error}")
                continue
            if newer:
                count = len(credentials.revocations.serials)
                core.log("info", "a new revocation list is in force", revoked=count)
                core.emit(Keep("revocations", octets))
                self._recheck()
        self._publish_revocations(lists)

    def _publish_revocations(self, present: tuple[bytes, ...]) -> None:
        """As an issuer: the zone must have our list, and only that, if ours is the newest."""
        core, credentials = self._core, self._credentials
        if self.issuer is None or credentials is None:
            return
        ledger = self.issuer.ledger
        lists = [one for one in (_read_list(one, credentials) for one in present) if one]
        newest = max(lists, key=lambda one: one.number, default=Revocations())
        news = [ledger.take_list(one, core.unix) for one in lists]
        if any(news):
            self._keep_ledger()
        if ledger.number > newest.number and (octets := self._list(self.issuer)) is not None:
            self._change(Change(REVOKED), Change(REVOKED, octets, add=True))
            if credentials.take_revocations(octets):
                core.emit(Keep("revocations", octets))
                self._recheck()

    def _list(self, issuer: Issuer) -> bytes | None:
        try:
            return issuer.revocations(self._core.unix)
        except AuthorityError as error:
            self._trouble(str(error))
            return None

    def _recheck(self) -> None:
        core = self._core
        self._recheck_at = core.now + core.settings.recheck
        core.ike_said(core.ike.recheck(core.now))

    # --- Renewal ----------------------------------------------------------------------------

    def _renew(self) -> None:
        """Asks for the next certificate, or whether it is there."""
        core, credentials = self._core, self._credentials
        assert credentials is not None and credentials.own is not None
        own = credentials.own.certificate
        due = ca.renew_at(own)
        if core.unix < due:
            wait = min(due - core.unix, core.settings.recheck)
            self._renewal_at = core.now + max(wait, 1)
            return
        self._renewal_at = core.now + core.settings.renewal_poll
        if self.issuer is not None:
            self._renew_by_ourselves(self.issuer, own)
        elif self._asked is None and isinstance(credentials.key, Ed25519PrivateKey):
            request = ca.request(credentials.key, core.identity.name)
            self._request = signing.renewal(own.public_bytes(Encoding.DER), request)
            self._asked = signing.request_id(self._request)
            core.log("info", "asking for the next certificate")
            self._change(Change(INBOX, self._request, add=True))
        elif self._asked is not None:
            self._read(answer_name(self._asked))

    def _renew_by_ourselves(self, issuer: Issuer, own: x509.Certificate) -> None:
        core, credentials = self._core, self._credentials
        assert credentials is not None and isinstance(credentials.key, Ed25519PrivateKey)
        octets = signing.renewal(
            own.public_bytes(Encoding.DER), ca.request(credentials.key, core.identity.name)
        )
        self._take(signing.read_answer(issuer.answer(octets, core.unix), None, ""))
        self._keep_ledger()

    def _answered(self, messages: tuple[bytes, ...]) -> None:
        asked = self._asked
        assert asked is not None
        if not messages:  # not yet, or the request is gone: it stands there until it is answered
            self._change(Change(INBOX, self._request, add=True))
            return
        self._asked = None
        self._change(Change(answer_name(asked)), Change(INBOX, self._request))
        for octets in messages:
            try:
                self._take(signing.read_answer(octets, None, asked))
            except SigningError as error:
                self._trouble(f"an answer to our signing request is ignored: {error}")

    def _take(self, answer: Granted | Refused) -> None:
        core, credentials = self._core, self._credentials
        assert credentials is not None and credentials.authority is not None
        if isinstance(answer, Refused):
            self._trouble(f"this host's certificate is not renewed: {answer.reason}")
            return
        try:
            trust = Trust((credentials.authority,), credentials.revocations.serials, "our CA")
            check([answer.certificate], core.identity.name, trust, core.unix)
        except CertificateError as error:
            self._trouble(f"a renewed certificate is ignored: {error}")
            return
        made = x509.load_der_x509_certificate(answer.certificate)
        own = credentials.own
        if own is None or made.public_key() != own.key.public_key():
            self._trouble("a renewed certificate is ignored: it is for another key")
            return
        credentials.renewed(made)
        self._problem = None
        self._renewal_at = core.now
        core.log("info", "this host has its next certificate", until=made.not_valid_after_utc)
        core.emit(Keep("certificate", made.public_bytes(Encoding.PEM)))

    # --- As an issuer -----------------------------------------------------------------------

    def _inbox(self, messages: tuple[bytes, ...]) -> None:
        issuer = self.issuer
        if issuer is None:
            return
        issued = len(issuer.ledger.issued)
        for octets in messages:
            asked = signing.request_id(octets)
            changes = [Change(INBOX, octets)]
            try:
                answer = issuer.answer(octets, self._core.unix)
            except SigningError as error:
                self._trouble(f"a signing request is not answered: {error}")
            else:
                name = answer_name(asked)
                changes += [Change(name), Change(name, answer, add=True)]
                self._answers[asked] = self._core.now + self._core.settings.answer_kept
            self._change(*changes)
        if len(issuer.ledger.issued) != issued:
            for entry in issuer.ledger.issued[issued:]:
                self._core.log("info", f"issued a certificate to {entry.name}", serial=entry.serial)
            self._keep_ledger()

    def _issued(self, vouchers: tuple[bytes, ...]) -> None:
        """What other issuers have issued is ours to know; what they lack is said; what has expired,
        or is not the CA's, is taken away."""
        core, issuer = self._core, self.issuer
        if issuer is None:
            return
        changes, said, news = [], set(), False
        for octets in vouchers:
            try:
                entry = issuer.read_voucher(octets)
            except SigningError as error:
                self._trouble(str(error))
                changes.append(Change(ISSUED, octets))
                continue
            said.add(entry)
            if entry.expires <= core.unix:
                changes.append(Change(ISSUED, octets))
            else:
                news |= issuer.ledger.learn(entry, core.unix)
        lacking = [e for e in issuer.ledger.issued if e not in said and e.expires > core.unix]
        changes += [Change(ISSUED, issuer.voucher(entry), add=True) for entry in lacking]
        if changes:
            self._change(*changes[:MAX_CHANGES])  # the rest at the next look
        if news:
            self._keep_ledger()

    def _keep_ledger(self) -> None:
        assert self.issuer is not None
        self._core.emit(Keep("ledger", self.issuer.ledger.to_json().encode()))

    def _remove_old_answers(self) -> None:
        now = self._core.now
        over = sorted(self._answers, key=self._answers.__getitem__)[:-MAX_ANSWERS]
        for asked in [a for a, until in self._answers.items() if until <= now or a in over]:
            del self._answers[asked]
            self._change(Change(answer_name(asked)))

    # --- Time and status --------------------------------------------------------------------

    def advance(self) -> None:
        """Does what is due."""
        core, settings = self._core, self._core.settings
        if core.ending:
            return
        if self._recheck_at is not None and self._recheck_at <= core.now:
            self._recheck()
        if self._revocations_at is not None and self._revocations_at <= core.now:
            self._revocations_at = core.now + settings.refresh
            self._read(REVOKED)
        if self._renewal_at is not None and self._renewal_at <= core.now:
            self._renew()
        if self._inbox_at is not None and self._inbox_at <= core.now:
            is_open = core.unix <= self._invited_until
            self._inbox_at = core.now + (settings.inbox_open if is_open else settings.inbox)
            self._remove_old_answers()
            self._read(ISSUED)  # first: a name that another issuer has given away is taken
            self._read(INBOX)

    def timers(self) -> list[float]:
        """When something is due."""
        if self._core.ending:
            return []
        due = (self._recheck_at, self._revocations_at, self._renewal_at, self._inbox_at)
        return [at for at in due if at is not None]

    def status(self) -> dict[str, Any] | None:
        """``certificate`` of ``status --json``; ``None`` on a host that has none."""
        credentials = self._credentials
        if credentials is None or credentials.own is None:
            return None
        own = credentials.own.certificate
        return {
            "serial": f"{own.serial_number:x}",
            "expires_unix": ca.expires(own),
            "renews_unix": ca.renew_at(own),
            "issuer": self.issuer is not None,
            "revoked": len(credentials.revocations.serials),
            "problem": self._problem,
        }

    # --- Inside -----------------------------------------------------------------------------

    def _read(self, prefix: str) -> None:
        core = self._core
        assert core.zone is not None
        core.zone_said(core.zone.read_texts(prefix, core.now, core.unix))

    def _change(self, *changes: Change) -> None:
        core = self._core
        assert core.zone is not None
        core.zone_said(core.zone.change_texts("signing", changes, core.now, core.unix))

    def _trouble(self, reason: str) -> None:
        """Told once per change, not per look."""
        if reason != self._problem:
            self._core.log("warning", reason)
        self._problem = reason


def _read_list(octets: bytes, credentials: Credentials) -> Revocations | None:
    assert credentials.authority is not None
    try:
        return ca.read_revocations(octets, credentials.authority)
    except AuthorityError:
        return None
