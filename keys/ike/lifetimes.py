"""What time does to an IKE SA: retransmission, rekeys, liveness checks, ends (RFC 7296 §2.4, §2.8).

Each SA says when it next wants to be looked at, and ``advance`` does what is due by then.
"""

from __future__ import annotations

from collections.abc import Iterator

from keys.ike import create_child, ike_auth
from keys.ike.child import Child, ChildState
from keys.ike.informational import Liveness, close, delete_child
from keys.ike.mobike import RouteCheck, detours, resend
from keys.ike.rekey_ike import RekeyIke
from keys.ike.sa import IkeSa, SaState
from keys.ike.sa_init import Init


def timers(sa: IkeSa) -> Iterator[float]:
    """All times at which something is due on ``sa``."""
    if sa.window.outstanding is not None:
        yield sa.window.outstanding.due
    if sa.expires_at is not None:
        yield sa.expires_at
    for pieces in (sa.asked, sa.told):
        if pieces.until is not None:
            yield pieces.until
    if sa.series is not None:
        yield sa.series.until
    if not sa.is_established:
        return
    if sa.rekey_at is not None:
        yield sa.rekey_at
    if sa.complete_at is not None:
        yield sa.complete_at
    if sa.unanswered_since is not None and not _checking(sa):
        yield sa.unanswered_since + sa.ctx.settings.liveness
    gone_at = _gone_at(sa)
    if gone_at is not None:
        yield gone_at
    for child in sa.children.values():
        yield from _child_timers(sa, child)


def _child_timers(sa: IkeSa, child: Child) -> Iterator[float]:
    if child.remove_at is not None:
        yield child.remove_at
    if child.delete_at is not None:
        yield child.delete_at
    if child.state is not ChildState.DELETING:
        yield child.expires_at
        if child.state is ChildState.ACTIVE and not sa.redundant and not child.rekeying:
            yield child.rekey_at


def advance(sa: IkeSa, now: float) -> None:
    """Does on ``sa`` what is due at ``now``."""
    _retransmit(sa, now)
    gone_at = _gone_at(sa)
    if gone_at is not None and now >= gone_at and sa.unanswered_since is not None:
        _no_answer(sa, now - sa.unanswered_since, now)
    sa.asked.forget(now)
    sa.told.forget(now)
    if sa.series is not None and now >= sa.series.until:
        sa.cancel_series(now)
    if sa.expires_at is not None and now >= sa.expires_at:
        _expire(sa, now)
    if not sa.is_established:
        return
    if sa.complete_at is not None and now >= sa.complete_at:
        sa.complete_at = None
        create_child.complete(sa, now)
    if sa.rekey_at is not None and now >= sa.rekey_at:
        sa.rekey_at = None
        sa.enqueue(RekeyIke(), now)
    if sa.unanswered_since is not None and now >= (sa.unanswered_since + sa.ctx.settings.liveness):
        check(sa, now)
    for child in list(sa.children.values()):
        _advance_child(sa, child, now)


def _gone_at(sa: IkeSa) -> float | None:
    """When the peer counts as gone, if neither our traffic nor our request is answered before."""
    outstanding, since = sa.window.outstanding, sa.unanswered_since
    if outstanding is None or since is None or not sa.is_established:
        return None
    settings = sa.ctx.settings
    return max(since + settings.liveness, outstanding.begun) + settings.silence


def check(sa: IkeSa, now: float) -> None:
    """Asks for a sign of life, unless a question is already under way: its answer is one."""
    if not _checking(sa):
        sa.enqueue(Liveness(), now)
    wait(sa, now)


def wait(sa: IkeSa, now: float) -> None:
    """A sign of life is wanted, but another request waits before it: it is given up as early as
    when our traffic went unanswered from now on."""
    if not isinstance(sa.task, Liveness) and sa.unanswered_since is None:
        sa.unanswered_since = now


def _checking(sa: IkeSa) -> bool:
    return sa.task is not None or any(isinstance(task, Liveness) for task in sa.queue)


def _retransmit(sa: IkeSa, now: float) -> None:
    data = sa.window.due(now)
    if data is not None:
        others = detours(sa)
        sa.moves += bool(others)  # asked at several endpoints, it proves none of them
        for remote in dict.fromkeys((sa.remote, *sa.race, *others)):
            sa.ctx.send(data, remote)
        return
    outstanding = sa.window.outstanding
    if outstanding is None or not sa.window.gave_up(now):
        return
    alive = sa.last_heard > outstanding.first_sent and not outstanding.hinted
    if sa.is_established and sa.task is not None and alive:
        # ESP of the peer arrives all the while: it lives, so we keep asking. Not so if it seems to
        # know nothing of this SA: what arrives may be of another one with it.
        outstanding.first_sent = now
        outstanding.tries_left = sa.task.tries(sa)
        return
    if isinstance(sa.task, RouteCheck) and sa.task.gave_up(sa):
        outstanding.first_sent = now
        outstanding.tries_left = sa.task.tries(sa)
        resend(sa, now)
        return
    seconds = now - outstanding.first_sent
    if sa.state is SaState.CLOSING:
        sa.drop(sa.reason, now)
    else:
        _no_answer(sa, seconds, now)


def _no_answer(sa: IkeSa, seconds: float, now: float) -> None:
    sa.drop(f"no answer from {sa.peer} for {seconds:.0f} s", now)


def _expire(sa: IkeSa, now: float) -> None:
    where = " and ".join(f"{host} port {port}" for host, port in (sa.remote, *sa.race))
    match sa.state:
        case SaState.CONNECTING:
            told = sa.task.refusal if isinstance(sa.task, Init) else None
            seconds = sa.ctx.settings.connect_timeout
            silence = f"no IKE answer from {sa.peer} at {where} within {seconds:.0f} s"
            sa.drop(told or silence, now)
        case SaState.AUTHENTICATING:
            sa.drop(f"{sa.peer} at {where} answered IKE_SA_INIT but not IKE_AUTH", now)
        case SaState.ASKING:
            ike_auth.refuse(sa, "nobody here could say whether it may in", now)
        case SaState.ESTABLISHED:
            close(sa, f"the IKE SA with {sa.peer} ended before it could be rekeyed", now)
        case SaState.CLOSING:
            sa.drop(sa.reason, now)
        case _:
            sa.drop("it took too long", now)


def _advance_child(sa: IkeSa, child: Child, now: float) -> None:
    if child.remove_at is not None and now >= child.remove_at:
        sa.remove_child(child)
    elif child.delete_at is not None and now >= child.delete_at:
        delete_child(sa, child, now)
    elif child.state is ChildState.DELETING:
        return
    elif now >= child.expires_at:
        last = sa.active_child(child.sa.traffic) is child
        delete_child(sa, child, now)
        if last:
            sa.ctx.log("warning", f"{sa.peer}: a child ended before it could be rekeyed")
            sa.enqueue(create_child.CreateChild(traffic=child.sa.traffic), now)
    elif child.state is ChildState.ACTIVE and not sa.redundant and now >= child.rekey_at:
        create_child.rekey(sa, child, now)
