"""This host's registration in the zone: first, again, refreshed, withdrawn (B36-B41, RFC 9664).

A machine with one message under way at a time. It first asks once for the host's SRV records, so
that target names of earlier boots (their EUI-64 may have been another) are removed with the first
UPDATE. A refresh is the same UPDATE again, which changes nothing where nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import dns.rdata

from discovery import records as words
from discovery.exchange import Response
from discovery.lookup import Question
from discovery.rcodes import NOERROR
from discovery.types import ClientCommand, HostRecords, Published, Withdrawn, ZoneProblem

MIN_LEASE: Final = 30  # seconds, RFC 9664: recommended minimum of a server
MAX_LEASE: Final = 7200  # seconds, B40

_MAX_STALE: Final = 8


@dataclass(frozen=True, slots=True)
class RegistrationSettings:
    """Times in seconds. ``lease`` is asked for (B40: 1800 to 7200, typical 5400); a server that
    grants none gets a refresh every ``refresh_without_lease``. A failed UPDATE is tried again
    after ``first_retry``, doubling up to ``max_retry``."""

    lease: int = 5400
    refresh_without_lease: float = 2700.0
    first_retry: float = 2.0
    max_retry: float = 60.0
    withdraw_timeout: float = 3.0


class Registration:
    """What should stand in the zone, what stands there, and when to write next."""

    def __init__(
        self,
        domain: str,
        label: str,
        random: Callable[[int], bytes],
        settings: RegistrationSettings,
    ) -> None:
        self._domain = domain
        self._service = Question(words.service_name(label, domain), words.SRV)
        self._label = label.lower()
        self._random = random
        self._settings = settings
        self._wanted: HostRecords | None = None
        self._sent: HostRecords | None = None  # of the UPDATE under way, or of the last one
        self._busy = False
        self._surveyed = False
        self._stale: set[str] = set()  # target labels to be removed with the next UPDATE
        self._due: float | None = None
        self._retry = settings.first_retry
        self._lease: int | None = None
        self._withdraw_until: float | None = None
        self._withdrawn = False

    # --- What is wanted ---

    def want(self, wanted: HostRecords, now: float) -> None:
        """Set the records that shall stand. Raises :exc:`~discovery.records.RecordsError`."""
        if wanted.label.lower() != self._label:
            raise words.RecordsError(f"{wanted.label!r} is not this host's label")
        words.update_message(wanted, self._domain, 0)  # complains now, not in a timer
        if self._sent is not None and self._sent.target != wanted.target:
            self._stale.add(self._sent.target)
        self._stale.discard(wanted.target)
        self._wanted = wanted
        self._withdraw_until = None
        self._due = now

    def again(self, now: float) -> None:
        """A new connection stands: write soon, whatever was written over the old one."""
        if self._wanted is not None and not self._busy:
            self._due = now

    def withdraw(self, now: float) -> list[ClientCommand]:
        """Turn to removing the records; nothing to be removed is said at once."""
        self._busy = False
        if self._sent is None:
            self._wanted = self._due = None
            return [Withdrawn()]
        self._wanted = None
        self._withdraw_until = now + self._settings.withdraw_timeout
        self._due = now
        return []

    def give_up(self, now: float) -> list[ClientCommand]:
        """Say that a withdrawal did not succeed in its time."""
        if self._withdraw_until is None or now < self._withdraw_until:
            return []
        self._withdraw_until = self._due = None
        self._busy = False
        return [
            ZoneProblem(
                "the rendezvous did not confirm that this host's records are gone; "
                "they stay until it takes them back or the host returns"
            )
        ]

    # --- What to send ---

    def timeout(self, usual: float) -> float:
        """Return how long a message may wait for its answer, in seconds."""
        withdrawing = self._withdraw_until is not None
        return self._settings.withdraw_timeout if withdrawing else usual

    def survey(self, now: float) -> Question | None:
        """Return the question to ask before the first UPDATE, if it is time for it."""
        if not self._is_due(now) or self._surveyed or self._wanted is None:
            return None
        self._busy = True
        return self._service

    def message(self, now: float, identity: int) -> bytes | None:
        """Return the UPDATE (unsigned) to send now, if any."""
        if not self._is_due(now):
            return None
        self._busy = True
        if self._wanted is None:
            assert self._sent is not None  # withdraw() sees to it
            return words.withdrawal_message(self._sent, self._domain, identity)
        if self._sent is not None and self._sent.target != self._wanted.target:
            self._stale.add(self._sent.target)
        self._sent = self._wanted
        return words.update_message(
            self._wanted,
            self._domain,
            identity,
            lease=self._settings.lease,
            stale_targets=sorted(self._stale),
        )

    def _is_due(self, now: float) -> bool:
        return not self._busy and self._due is not None and now >= self._due

    def next_timer(self, up: bool) -> float | None:
        """Return when something is due, in monotonic seconds."""
        times = [] if self._withdraw_until is None else [self._withdraw_until]
        if up and not self._busy and self._due is not None:
            times.append(self._due)
        return min(times, default=None)

    # --- What came of it ---

    def surveyed(self, services: Iterable[dns.rdata.Rdata]) -> None:
        """Take the SRV data that stand in the zone; targets that are not ours now are stale."""
        self._busy = False
        self._surveyed = True
        for _, _, name in words.services_in(services, self._domain):
            target = words.target_of(name, self._domain)
            is_ours = target is not None and target.lower().startswith("autotunnel-")
            current = self._wanted.target if self._wanted else None
            if target is not None and is_ours and target != current:
                self._stale.add(target)
        self._stale = set(sorted(self._stale)[:_MAX_STALE])

    def updated(self, response: Response, now: float) -> str:
        """Take the answer to an UPDATE; return why it was refused, or an empty string."""
        self._busy = False
        if response.rcode != NOERROR:
            self.failed(now)
            return (
                f"the rendezvous refuses to write this host's records ({response.says}); "
                "it is tried again"
            )
        self._retry = self._settings.first_retry
        if self._wanted is None:
            self._withdrawn = True
            self._sent = self._due = self._withdraw_until = None
            return ""
        self._stale.clear()
        self._lease = response.lease
        self._due = now if self._wanted != self._sent else now + self._refresh_after()
        return ""

    def outcome(self) -> list[ClientCommand]:
        """Return what the last successful UPDATE brought about."""
        if self._withdrawn:
            self._withdrawn = False
            return [Withdrawn()]
        return [Published(self._lease, self._sent)]

    def failed(self, now: float) -> None:
        """The message under way came to nothing: try again later."""
        self._busy = False
        if self._due is not None:
            self._due = now + self._retry
            self._retry = min(self._retry * 2, self._settings.max_retry)

    def _refresh_after(self) -> float:
        """80 % of the lease and a random 0-5 % of it (RFC 9664 §5.2)."""
        if self._lease is None:
            return self._settings.refresh_without_lease
        lease = max(MIN_LEASE, min(self._lease, MAX_LEASE))
        return lease * (0.8 + 0.05 * self._random(1)[0] / 255)
