"""Post-quantum pre-shared keys, both roles (RFC 8784).

::

    IKE_SA_INIT   N(USE_PPK)                              ──>   <──  N(USE_PPK)
    IKE_AUTH      AUTH N(PPK_IDENTITY, id) [N(NO_PPK_AUTH)] ──>   <──  AUTH N(PPK_IDENTITY)
    SK_d, SK_pi, SK_pr = prf+(PPK, what they were)

A PPK is *required* or not, on each side. Where it is not, the initiator also proves itself without
it (NO_PPK_AUTH), and a responder that does not hold it may take that. Rekeys inherit it in SK_d.
"""

from __future__ import annotations

import hmac

from keys.ike import proof
from keys.ike.context import Context
from keys.ike.keymat import mixed_with_ppk
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Authentication, Contents, Identity
from keys.ike.sa import IkeSa
from keys.ike.types import Ppk

_FIXED = b"\x02"  # PPK_ID_FIXED (RFC 8784 §5.1)
USE_PPK = Notify(NotifyType.USE_PPK)


def offered(ctx: Context, name: str | None) -> list[Notify]:
    """What our IKE_SA_INIT request says about the peer that we want."""
    return [USE_PPK] if name in ctx.ppks else []


def accepted(ctx: Context, request: Contents) -> list[Notify]:
    """What our IKE_SA_INIT answer says: we hold some, and do not know yet who asks."""
    return [USE_PPK] if ctx.ppks and request.notify(NotifyType.USE_PPK) else []


def learn(sa: IkeSa, theirs: Contents, ours: list[Notify]) -> None:
    """Whether both sides said that they may use one."""
    sa.init.use_ppk = bool(ours) and theirs.notify(NotifyType.USE_PPK) is not None


def missing(sa: IkeSa, answer: Contents) -> str | None:
    """Why an IKE_SA_INIT answer will not do, as initiator; or None."""
    ppk = sa.ctx.ppks.get(sa.name or "")
    if ppk is None or not ppk.required or answer.notify(NotifyType.USE_PPK) is not None:
        return None
    return f"{sa.peer} uses no post-quantum pre-shared key; we want one"


# --- Initiator --------------------------------------------------------------------------------


def prove(sa: IkeSa, contents: Contents) -> None:
    """Adds our AUTH to an IKE_AUTH request, with the PPK if there is one for this peer, and
    without it beside that if it is not required. Raises ``proof.ProofError``."""
    ppk = sa.ctx.ppks.get(sa.name or "") if sa.init.use_ppk else None
    if ppk is None:
        proof.prove(sa, contents)
        return
    if not ppk.required:
        spare = Contents()
        proof.prove(sa, spare)
        assert spare.auth is not None
        contents.notifies.append(Notify(NotifyType.NO_PPK_AUTH, spare.auth.data))
    sa.init.without_ppk = sa.keys
    _mix(sa, ppk)
    proof.prove(sa, contents)
    contents.notifies.append(Notify(NotifyType.PPK_IDENTITY, _FIXED + ppk.identity))


def verify_responder(sa: IkeSa, identity: Identity, answer: Contents) -> str | None:
    """What is wrong with the responder's AUTH, or None."""
    without = sa.init.without_ppk
    if without is not None and answer.notify(NotifyType.PPK_IDENTITY) is None:
        if sa.ctx.ppks[identity.name or ""].required:
            return f"{identity.describe()} does not hold our post-quantum pre-shared key"
        sa.keys, sa.ppk = without, False
    return proof.verify(sa, identity, answer)


# --- Responder --------------------------------------------------------------------------------


def verify_initiator(sa: IkeSa, identity: Identity, request: Contents) -> str | None:
    """What is wrong with the initiator's AUTH, or None: the table of RFC 8784 §3."""
    ppk, who = sa.ctx.ppks.get(identity.name or ""), identity.describe()
    required = ppk is not None and ppk.required
    if not sa.init.use_ppk:
        if required:
            return f"{who} uses no post-quantum pre-shared key; we want one"
        return proof.verify(sa, identity, request)
    named = request.notify(NotifyType.PPK_IDENTITY)
    if named is None:
        return f"{who} agreed to a post-quantum pre-shared key and named none"
    if ppk is not None and hmac.compare_digest(named.data, _FIXED + ppk.identity):
        _mix(sa, ppk)
        return proof.verify(sa, identity, request)
    spare = request.notify(NotifyType.NO_PPK_AUTH)
    if required or spare is None:
        return f"{who} wants a post-quantum pre-shared key that we do not hold for it"
    assert request.auth is not None
    request.auth = Authentication(request.auth.method, spare.data)
    return proof.verify(sa, identity, request)


def told(sa: IkeSa) -> list[Notify]:
    """What our IKE_AUTH answer says: the PPK is in use."""
    return [Notify(NotifyType.PPK_IDENTITY)] if sa.ppk else []


def _mix(sa: IkeSa, ppk: Ppk) -> None:
    assert sa.keys is not None
    # SK_e stays, so that what protects the messages need not be made anew.
    sa.keys, sa.ppk = mixed_with_ppk(sa.keys, ppk.secret), True
