"""IKE_INTERMEDIATE, both roles: key exchanges that IKE_SA_INIT cannot carry (RFC 9242, RFC 9370).

::

    initiator                      responder
    SK{KEi(n)}  ──>                                 an ML-KEM encapsulation key, say
                <──  SK{KEr(n)}                     its ciphertext
    SKEYSEED(n) = prf(SK_d(n-1), SK(n)|Ni|Nr): all keys anew, from the next exchange on

It may be cut into fragments, and AUTH vouches for all of it (:mod:`keys.ike.intauth`).
"""

from __future__ import annotations

from keys.ike.errors import InvalidSyntaxError
from keys.ike.header import Exchange
from keys.ike.informational import Answer
from keys.ike.keymat import updated
from keys.ike.payloads import Contents
from keys.ike.sa import IkeSa


class Intermediate:
    """Our next additional key exchange."""

    exchange = Exchange.IKE_INTERMEDIATE
    about_child = False

    def request(self, sa: IkeSa, now: float) -> Contents:
        """Our public key."""
        return Contents(ke=sa.rounds.ask(sa.ctx.random))

    def tries(self, sa: IkeSa) -> int:
        """The time of the whole attempt is bounded too."""
        return sa.ctx.settings.retransmit_tries

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """New keys; a refusal ends the attempt."""
        error = answer.error()
        if error is not None:
            sa.drop(f"{sa.peer} refused IKE_INTERMEDIATE with {error.name}", now)
            return
        _update(sa, sa.rounds.take(answer.ke))


def respond(sa: IkeSa, request: Contents) -> Answer:
    """Answers the peer's; the answer still goes under the old keys."""
    if not sa.rounds:
        raise InvalidSyntaxError("an IKE_INTERMEDIATE request that was not agreed on")
    ke, secret = sa.rounds.respond(request.ke, sa.ctx.random, sa.ctx.encapsulate)
    return Answer(Contents(ke=ke), lambda: _update(sa, secret))


def _update(sa: IkeSa, secret: bytes) -> None:
    assert sa.keys is not None
    sa.use_keys(updated(sa.keys, sa.nonces, secret, sa.spi_i, sa.spi_r))
