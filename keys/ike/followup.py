"""IKE_FOLLOWUP_KE, both roles: more key exchanges for a rekey (RFC 9370 §2.2.4).

::

    CREATE_CHILD_SA   SK{SA Ni KEi …}       ──>
                                            <──  SK{SA Nr KEr … N(ADDITIONAL_KEY_EXCHANGE, link)}
    IKE_FOLLOWUP_KE   SK{KEi(1) N(AKE, link)} ──>
                                            <──  SK{KEr(1) [N(AKE, next link)]}
    the new SA stands after the last one

The responder keeps what CREATE_CHILD_SA began for 20 s. When both sides rekey at once, the holder
of the lowest nonce just does not go on: there is nothing to delete yet.
"""

from __future__ import annotations

import hmac

from keys.ike.additional import Rounds, accepted
from keys.ike.errors import InvalidSyntaxError, RefusedError
from keys.ike.informational import Answer
from keys.ike.keymat import Nonces
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents
from keys.ike.proposals import NO_ADDITIONAL, Additional
from keys.ike.sa import IkeSa, Series

_LINK_OCTETS = 16
LOST_LIMIT = 3  # so often in a row STATE_NOT_FOUND is an accident


def wanted(sa: IkeSa) -> Additional:
    """What we offer for a rekey on this SA: as it was made, so that old peers see nothing new."""
    settings = sa.ctx.settings
    return accepted(settings) if sa.additional or settings.additional_required else NO_ADDITIONAL


# --- Initiator --------------------------------------------------------------------------------


def ask(sa: IkeSa, rounds: Rounds, link: Notify) -> Contents:
    """The next request of a series."""
    return Contents(ke=rounds.ask(sa.ctx.random), notifies=[link])


def link_of(sa: IkeSa, answer: Contents, rounds: Rounds) -> Notify | None:
    """What the next request must bring; None after the last one. Raises InvalidSyntaxError."""
    link = answer.notify(NotifyType.ADDITIONAL_KEY_EXCHANGE)
    if rounds and link is None:
        raise InvalidSyntaxError(f"{sa.peer} gave no link to the next key exchange")
    return link if rounds else None


def lost(sa: IkeSa) -> bool:
    """The peer has forgotten the series; whether that has happened too often."""
    sa.lost_series += 1
    return sa.lost_series >= LOST_LIMIT


def loses(ours: Nonces, theirs: Nonces | None) -> bool:
    """Whether our series must stop, since the peer's rekey of the same SA goes on."""
    return theirs is not None and ours.lowest < theirs.lowest


# --- Responder --------------------------------------------------------------------------------


def begin(sa: IkeSa, series: Series, answer: Contents, now: float) -> Answer:
    """Keeps a series for its first follow-up; one that the peer left is forgotten."""
    sa.cancel_series(now)
    sa.series = series
    _link(sa, series, answer, now)
    return Answer(answer)


def _link(sa: IkeSa, series: Series, answer: Contents, now: float) -> None:
    series.link = sa.ctx.random(_LINK_OCTETS)
    series.until = now + sa.ctx.settings.followup_timeout
    answer.notifies.append(Notify(NotifyType.ADDITIONAL_KEY_EXCHANGE, series.link))


def respond(sa: IkeSa, request: Contents, now: float) -> Answer:
    """Answers the peer's next key exchange of a series."""
    series, link = sa.series, request.notify(NotifyType.ADDITIONAL_KEY_EXCHANGE)
    if series is None or link is None or not hmac.compare_digest(series.link, link.data):
        sentence = f"{sa.peer} follows up on what is not there (any more)"
        raise RefusedError(NotifyType.STATE_NOT_FOUND, sentence)
    ke, _ = series.rounds.respond(request.ke, sa.ctx.random, sa.ctx.encapsulate)
    answer = Contents(ke=ke)
    if series.rounds:
        _link(sa, series, answer, now)
        return Answer(answer)
    sa.series = None
    return Answer(answer, series.finish(series.rounds.more, now))
