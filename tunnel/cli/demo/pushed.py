"""How long a change in the zone takes to reach the other host, read from both hosts' logs.

Both run on this machine's clock. A host says in its log when the rendezvous has acknowledged its
records, and when the rendezvous has told it where another one is, each with the place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

_TAKEN = "the zone has this host's records"
_TOLD = "the zone says where"
_LINE = re.compile(r"^(\S+T\S+) .*?(?:" + _TAKEN + "|" + _TOLD + r") .*?at='?([^'\n]*)'?")


@dataclass(frozen=True, slots=True)
class Push:
    """Wall clock seconds: ``taken`` when the update was acknowledged to the host that changed,
    ``told`` when the other one's node knew."""

    taken: float
    told: float

    @property
    def milliseconds(self) -> float:
        """From the acknowledgement to the event. Both leave the rendezvous together, so that the
        event may even be first, and this negative."""
        return round((self.told - self.taken) * 1000, 2)

    @property
    def words(self) -> str:
        """The same for people."""
        when = "after" if self.milliseconds >= 0 else "before"
        return f"{abs(self.milliseconds):.1f} ms {when} it was acknowledged"


def measure_push(changed: str, other: str, address: str) -> Push | None:
    """When the change to ``address`` was acknowledged and told, by the logs of the host that
    changed and of the other one; ``None``: they do not show it yet."""
    taken, told = _last(changed, _TAKEN, address), _last(other, _TOLD, address)
    return None if taken is None or told is None else Push(taken, told)


def _last(log: str, what: str, address: str) -> float | None:
    for line in reversed(log.splitlines()):
        found = _LINE.match(line)
        if found and what in line and address in found[2]:
            return datetime.fromisoformat(found[1]).timestamp()
    return None
