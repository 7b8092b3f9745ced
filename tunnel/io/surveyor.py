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
    """``surveyed``, ``portal`` and ``nat64`` are what was found; ``on_news`` is called with each
    answer, and told whether one of them has changed."""

    def __init__(self, on_news: Callable[[bool], None], questions: Questions | None = None) -> None:
        self._on_news, self._ask = on_news, questions or Questions()
        self._local: tuple[Endpoint, ...] = ()
        self._server: str | None = None
        self._zone_up = self._doubted = False
        self._due = {"survey": 0.0, "portal": 0.0, "nat64": 0.0}
        self._task: asyncio.Task[None] | None = None
        self.surveyed: Surveyed | None = None
        self.portal: Portal | None = None
        self.nat64: IPv6Network | None = None

    def look(
        self, local: tuple[Endpoint, ...], server: str | None, zone_up: bool, now: float
    ) -> None:
        """Call it after each change and after :meth:`wait`: we are at ``local``, the rendezvous at
        ``server``, and ``zone_up`` is whether it can be asked."""
        if local != self._local or server != self._server:
            self._begin_anew(local, server, now)
        if self._zone_up and not zone_up:  # the network may have changed and not said so
            self._doubted, self._due["survey"] = True, now
        self._zone_up = zone_up
        if zone_up:
            self.portal = None
        question = self._next()
        if question is not None and self._due[question] <= now:
            self._due[question] = now + AGAIN
            self._task = asyncio.create_task(self._run(question))

    def wait(self, now: float) -> float:
        """Seconds until :meth:`look` has something to ask; infinite if nothing changes."""
        question = self._next()
        return float("inf") if question is None else max(0.0, self._due[question] - now)

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

    def _next(self) -> str | None:
        """What is to be asked next, one at a time."""
        if self._task is not None:
            return None
        bare = bool(self._local) and all(":" in host for host, _ in self._local)
        silent = self.surveyed is None or not self.surveyed.udp
        cut_off = self.surveyed is not None and not self.surveyed.udp and not self._zone_up
        wanted = {
            "nat64": bare and self.nat64 is None,
            "survey": (silent or self._doubted) and self._from() is not None,
            "portal": cut_off and self._server is not None,
        }
        return min(filter(wanted.get, wanted), key=self._due.__getitem__, default=None)

    def _from(self) -> str | None:
        """The address of ours from which the rendezvous can be asked."""
        if self._server is None:
            return None
        version = ip_address(self._server).version
        ours = (host for host, _ in self._local if ip_address(host).version == version)
        return next(ours, None)

    async def _run(self, question: str) -> None:
        before = self.surveyed, self.portal, self.nat64
        try:
            await self._put(question)
        finally:
            if self._task is asyncio.current_task():  # else it is of another network
                self._task = None
        self._on_news(before != (self.surveyed, self.portal, self.nat64))

    async def _put(self, question: str) -> None:
        local, server = self._from(), self._server
        if question == "nat64":
            self.nat64 = await self._ask.nat64()
        elif question == "portal" and server is not None:
            self.portal = await self._ask.portal(server)
        elif local is not None and server is not None:
            self._doubted = False
            self.surveyed = await self._ask.survey(server, STUN_PORTS, local)
