"""What this host proves itself with, and whom it believes: the node's word to IKE (DESIGN "Keys").

Hosts of the account show certificates of the account's CA; a static peer shows what the
configuration says, a pre-shared key or a certificate of a CA of its own. The account's revocation
list only ever grows newer: an older one, or none, changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from cryptography import x509

from keys import ca
from keys.ca import Revocations
from keys.ike.certificates import Certified, Credential, Trust
from keys.ike.signature import SigningKey


class Credentials:
    """The certification of one host (:class:`keys.ike.certificates.Certification`).

    ``own`` is its credential in the account, ``authority`` the account's CA. ``static`` are the
    peers of the configuration that prove themselves with certificates; ``others`` the names of
    those that do not.
    """

    def __init__(
        self,
        domain: str | None,
        own: Credential | None,
        authority: x509.Certificate | None,
        *,
        revocations: Revocations | None = None,
        revoked: Collection[int] = (),
        static: Mapping[str, Certified] | None = None,
        others: Collection[str] = (),
    ) -> None:
        self._suffix = None if domain is None else "." + domain.lower()
        self.own = own
        self.authority = authority
        self.revocations = revocations or Revocations()
        self._static = {name.lower(): one for name, one in (static or {}).items()}
        self._others = frozenset(name.lower() for name in others)
        anchors = () if authority is None else (authority,)
        self._revoked = frozenset(revoked)  # by the configuration
        serials = self.revocations.serials | self._revoked
        self._trust = Trust(anchors, serials, f"the CA of {domain}")

    def for_peer(self, name: str) -> Certified | None:
        """See :class:`keys.ike.certificates.Certification`."""
        if name in self._static:
            return self._static[name]
        if self.own is None or self._suffix is None or name in self._others:
            return None
        label = name.removesuffix(self._suffix)
        is_host = label != name and label and "." not in label
        return Certified(self.own, self._trust) if is_host else None

    def authorities(self) -> bytes:
        """See :class:`keys.ike.certificates.Certification`."""
        trusts = {id(one.trust): one.trust for one in self._static.values()}
        own = self._trust.authorities()
        return own + b"".join(trust.authorities() for trust in trusts.values())

    @property
    def key(self) -> SigningKey | None:
        """This host's own key."""
        return None if self.own is None else self.own.key

    def renewed(self, certificate: x509.Certificate) -> None:
        """This host has its next certificate, for the same key."""
        assert self.own is not None
        self.own = Credential(self.own.key, (certificate,))

    def take_revocations(self, octets: bytes) -> bool:
        """Takes a revocation list if it is newer; whether it was.

        Raises :exc:`keys.ca.AuthorityError` if the account's CA did not sign it.
        """
        assert self.authority is not None
        found = ca.read_revocations(octets, self.authority)
        if found.number <= self.revocations.number:
            return False
        self.revocations = found
        self._trust = replace(self._trust, revoked=found.serials | self._revoked)
        return True
