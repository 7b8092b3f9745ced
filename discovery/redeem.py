"""Redeeming an invitation: one signed question; its answer holds the secret (decision 0004).

The other side of :mod:`discovery.invitations`: the joining host asks with a nonce of its own, which
binds the invitation to it. When an answer is lost it asks with the *same* nonce again, which is
allowed until the invitation expires; so a :class:`Redemption` is kept for all its attempts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import dns.name
import dns.rdatatype
import dns.rdtypes.ANY.TXT

from discovery import exchange, invitations, rcodes
from discovery.exchange import Rejection, Request
from discovery.invitations import Invitation, SealError
from discovery.types import TsigKey

_TXT: Final = int(dns.rdatatype.TXT)
_NEW_ONE: Final = "ask for a new one (`autotunnel invite` on a host of the account)"


class RedeemError(Exception):
    """The invitation cannot be redeemed; the message says why and what to do.

    ``temporary``: the same token may still work later.
    """

    def __init__(self, reason: str, *, temporary: bool = False) -> None:
        super().__init__(reason)
        self.temporary = temporary


@dataclass(frozen=True, slots=True)
class Redemption:
    """One host's use of one invitation: what the token said, and the nonce that binds it.

    ``expires`` is unix seconds, ``key`` the invitation key (32 octets).
    """

    domain: str
    identity: bytes
    expires: int
    key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    @classmethod
    def begin(
        cls,
        domain: str,
        identity: bytes,
        expires: int,
        key: bytes,
        random: Callable[[int], bytes],
    ) -> Redemption:
        """Choose the nonce."""
        return cls(domain, identity, expires, key, random(invitations.NONCE_SIZE))

    def ask(self, message_id: int, unix: int) -> Request:
        """Return the signed question; every attempt is signed afresh, with the same nonce."""
        invitation = Invitation(self.identity, self.expires)
        key = TsigKey(invitations.key_name(invitation, self.domain), self.key)
        name = dns.name.from_text(invitations.question_name(self.identity, self.nonce, self.domain))
        return exchange.signed_query(name, _TXT, message_id, key, unix)

    def take(self, request: Request, wire: bytes, unix: int) -> bytes | None:
        """Return the account secret that an answer holds, or ``None`` for a foreign message.

        Raises :exc:`RedeemError`.
        """
        judgement = exchange.judge(request, wire, unix)
        if isinstance(judgement, Rejection):
            _raise_if_told(judgement)
            return None
        if judgement.rcode != rcodes.NOERROR:
            raise _refused(judgement.rcode, judgement.words or judgement.says)
        assert request.question is not None
        texts = [
            b"".join(rdata.strings).decode("latin-1")
            for rdata in judgement.at(*request.question)
            if isinstance(rdata, dns.rdtypes.ANY.TXT.TXT)
        ]
        if not texts:
            raise RedeemError("the rendezvous' answer holds no account secret", temporary=True)
        try:
            return invitations.open_sealed(texts[0], self.key, self.nonce, self.domain)
        except SealError as error:
            raise RedeemError(f"{error}; {_NEW_ONE}") from error


def _raise_if_told(rejection: Rejection) -> None:
    """Over a stream no other answer follows a refusal, so that it is believed at once."""
    if rejection.kind == "clock":
        raise RedeemError(rejection.reason, temporary=True)
    if rejection.kind == "secret":
        raise RedeemError(
            "the rendezvous does not know this invitation: it is of another account or another "
            f"rendezvous, or the account's secret was changed; {_NEW_ONE}"
        )


def _refused(rcode: int, words: str) -> RedeemError:
    if rcode == rcodes.REFUSED:
        return RedeemError(f"the rendezvous refuses the invitation: {words}")
    return RedeemError(f"the rendezvous failed ({words}); try again", temporary=True)
