"""Asks, beside all else, what kind of network this is; nothing waits for the answers.

A survey of UDP when the network has changed, and again while UDP does not get out; the question for
a portal while neither UDP nor the zone is there; the question for a NAT64 where there is no IPv4.
All of it goes to the rendezvous' address or to the network's own resolver, and to nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address

from discovery.io_network import nat64_prefix, portal_before
from discovery.io_survey import survey
from discovery.nat.portal import Portal
from discovery.nat.survey import Surveyed
from fastpath.types import Endpoint

STUN_PORTS = (3478, 3479)  # of the rendezvous
FIRST = 1.0  # seconds after a change, for what is urgent
AGAIN = 30.0  # seconds between two questions that were answered with nothing


@dataclass(frozen=True, slots=True)
class Questions:
    """How the network is asked."""

    survey: Callable[[str, tuple[int, int], str], Awaitable[Surveyed]] = survey
    portal: Callable[[str], Awaitable[Portal | None]] = portal_before
    nat64: Callable[[], Awaitable[IPv6Network | None]] = nat64_prefix


class Surveyor:
    """``surveyed``, ``portal`` and ``nat64`` are what was found; ``on_news`` is called when one of
    them has changed."""

    def __init__(self, on_news: Callable[[], None], questions: Questions | None = None) -> None:
        self._on_news, self._ask = on_news, questions or Questions()
        self._local: tuple[Endpoint, ...] = ()
        self._server: str | None = None
        self._due = {"survey": 0.0, "portal": 0.0, "nat64": 0.0}
        self._task: asyncio.Task[None] | None = None
        self.surveyed: Surveyed | None = None
        self.portal: Portal | None = None
        self.nat64: IPv6Network | None = None

    def look(
        self, local: tuple[Endpoint, ...], server: str | None, zone_up: bool, now: float
    ) -> None:
        """Call it every few seconds: we are at ``local``, the rendezvous at ``server``, and
        ``zone_up`` is whether it can be asked."""
        if local != self._local or server != self._server:
            self._begin_anew(local, server, now)
        if zone_up:
            self.portal = None
        if self._task is None and (question := self._next(zone_up, now)) is not None:
            self._due[question] = now + AGAIN
            self._task = asyncio.create_task(self._run(question))

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- Inside -----------------------------------------------------------------------------

    def _begin_anew(self, local: tuple[Endpoint, ...], server: str | None, now: float) -> None:
        self._local, self._server = local, server
        if self._task is not None:
            self._task.cancel()  # what it would say is of another network
            self._task = None
        self._due = dict.fromkeys(self._due, now + FIRST)
        self.surveyed = self.portal = self.nat64 = None

    def _next(self, zone_up: bool, now: float) -> str | None:
        """What is to be asked now, if anything."""
        due = {name for name, at in self._due.items() if at <= now}
        bare = bool(self._local) and all(":" in host for host, _ in self._local)
        if "nat64" in due and bare and self.nat64 is None:
            return "nat64"
        silent = self.surveyed is None or not self.surveyed.udp
        if "survey" in due and silent and self._from() is not None:
            return "survey"
        unknown = self.surveyed is not None and not self.surveyed.udp and not zone_up
        if "portal" in due and unknown and self._server is not None:
            return "portal"
        return None

    def _from(self) -> str | None:
        """The address of ours from which the rendezvous can be asked."""
        if self._server is None:
            return None
        version = ip_address(self._server).version
        ours = (host for host, _ in self._local if ip_address(host).version == version)
        return next(ours, None)

    async def _run(self, question: str) -> None:
        before = self.surveyed, self.portal, self.nat64
        local, server = self._from(), self._server
        if question == "nat64":
            self.nat64 = await self._ask.nat64()
        elif question == "portal" and server is not None:
            self.portal = await self._ask.portal(server)
        elif local is not None and server is not None:
            self.surveyed = await self._ask.survey(server, STUN_PORTS, local)
        self._task = None
        if before != (self.surveyed, self.portal, self.nat64):
            self._on_news()
