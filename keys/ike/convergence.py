"""One peer, one IKE SA: restarts and simultaneous initiation (RFC 7296 §2.4, §2.8.1).

Both sides may begin at the same moment, and then two IKE SAs come to stand::

    ours   ──IKE_SA_INIT──>  <──IKE_SA_INIT──  theirs
                   …both run to their end…
    the SA whose exchange held the lowest of the four nonces is redundant; its creator makes
    sure that the other one stands at the far end, moves the traffic, and then deletes it.

So both sides choose alike without a word, and packets always have an SA that both ends hold.

INITIAL_CONTACT says "I know of no other SA with you". What it removes are the SAs that stood
before its own exchange began: one that came to stand since then was made with the very same
incarnation of the peer, which just did not know of it yet.
"""

from __future__ import annotations

from keys.ike.create_child import complete
from keys.ike.informational import Liveness, close
from keys.ike.sa import IkeSa, SaState


def forget_older(sa: IkeSa, now: float) -> None:
    """The peer of ``sa`` restarted: its earlier SAs are gone, without a word to anybody."""
    assert sa.name is not None
    for other in sa.ctx.named(sa.name):
        if other is not sa and 0 < other.established_order < sa.created_order:
            other.drop(f"{sa.name} restarted", now)


def trim(sa: IkeSa, now: float) -> None:
    """Even an authenticated peer may not pile up SAs: the oldest go."""
    assert sa.name is not None
    others = [other for other in sa.ctx.standing(sa.name) if other is not sa]
    for other in others[: max(0, len(others) + 1 - sa.ctx.settings.sas_per_peer)]:
        other.drop(f"{sa.name} has too many IKE SAs", now)


def converge(sa: IkeSa, now: float) -> None:
    """``sa`` has just come to stand: decide between it and others with the same peer.

    Moves our outbound traffic to ``sa`` unless it is the redundant one.
    """
    assert sa.name is not None
    ctx = sa.ctx
    others = [o for o in ctx.standing(sa.name) if o is not sa and not o.redundant]
    for other in others:
        loser, winner = _order(sa, other)
        loser.redundant = True
        loser.rekey_at = loser.complete_at = None
        if loser.initiator:
            _retire(loser, winner, now)
    for attempt in ctx.named(sa.name):
        if attempt.state is SaState.CONNECTING:
            # Not answered yet: the peer has at most a half-open SA of it, which times out.
            attempt.drop(f"{sa.name} was quicker", now)
    # As responder with another SA in use we wait: the initiator cannot receive on the new
    # SA before our answer reaches it. Its Delete of the redundant one, or our own check, moves us.
    if not sa.redundant and (sa.initiator or not others):
        for child in sa.active_children():
            sa.send_on(child)


def _order(one: IkeSa, two: IkeSa) -> tuple[IkeSa, IkeSa]:
    """Loser and winner; an SA without children loses, then the one with the lowest nonce."""
    low, high = sorted((one, two), key=lambda sa: (bool(sa.children), sa.nonces.lowest))
    return low, high


def _retire(loser: IkeSa, winner: IkeSa, now: float) -> None:
    """Our redundant SA goes as soon as the far end has answered on the other."""

    def stands(at: float) -> None:
        if loser.state is not SaState.ESTABLISHED:
            return
        winner.carry_on(loser)
        complete(winner, at)
        close(loser, f"another IKE SA with {loser.name} stands", at)

    winner.enqueue(Liveness(then=stands), now)
