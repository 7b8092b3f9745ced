"""The end of a host: every peer is told, those by relay before the home agent that carries it.

A home agent is left when these have confirmed, or after half of the time that all may take.
"""

from __future__ import annotations

from tunnel.core import Core


class Farewell:
    """Says DELETE to everybody, once :meth:`begin` was called."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._until = self._carried_until = float("inf")
        self._carriers: set[str] = set()
        self.untold: set[str] = set()
        """Peers that have not confirmed our DELETE."""

    def begin(self, carriers: set[str]) -> None:
        """``carriers`` are home agents through which peers are reached."""
        core, patience = self._core, self._core.settings.farewell
        self.untold = {view.name for view in core.ike.views()}
        self._carriers = carriers & self.untold
        self._until, self._carried_until = core.now + patience, core.now + patience / 2
        core.ike_said(core.ike.close_all(core.now, but=self._carriers))
        self.advance()

    def advance(self) -> None:
        """Leaves the home agents, if that is due."""
        core = self._core
        told = self.untold <= self._carriers
        if self._carriers and (told or core.now >= self._carried_until):
            names, self._carriers = sorted(self._carriers), set()
            for name in names:
                core.ike_said(core.ike.close(name, core.now))

    def is_over(self, withdrawn: bool) -> bool:
        """Whether all is said, our records ``withdrawn`` included, or the time is over."""
        return (withdrawn and not self.untold) or self._core.now >= self._until

    def timers(self) -> list[float]:
        """When something is due."""
        due = [self._until] if self._until < float("inf") else []
        return [*due, self._carried_until] if self._carriers else due
