"""``serve`` as a service: the zones of a configuration, without any capability once it runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from discovery.backing import keyfile
from discovery.held import Backing, ZoneAccount
from discovery.io_listen import ListenError
from discovery.io_serve import ConnectionLimits, RendezvousServer, ServeError
from discovery.io_stun import StunServer
from discovery.llq_server import LlqLimits
from discovery.push_server import PushLimits
from discovery.rates import RateLimits
from discovery.subscriptions import SubscriptionLimits
from discovery.types import Endpoint
from discovery.update import ZoneLimits
from keys import store
from tunnel.cli.voice import say
from tunnel.config import ServeAccount, ServeConfig
from tunnel.io import privilege
from tunnel.io.control import ControlError
from tunnel.io.showing import SOCKET_NAME, Showing
from tunnel.io.surveyor import STUN_PORTS


class Rendezvous:
    """A :class:`~discovery.io_serve.RendezvousServer` that runs until it is stopped.

    ``home_agent`` is the name of the host that runs beside it. Raises
    :class:`keys.store.SecretFileError` if an account's secret cannot be read.
    """

    def __init__(self, settings: ServeConfig, home_agent: str | None = None) -> None:
        self.server = RendezvousServer(
            accounts=[zone_account(settings, one) for one in settings.accounts],
            listen=settings.listen,
            tls_listen=settings.tls_listen,
            state_dir=settings.state_dir,
            addresses=settings.address,
            connection_limits=ConnectionLimits(
                total=settings.connections,
                per_source=settings.connections_per_source,
                idle=settings.idle_s,
            ),
            unsigned_per_s=settings.unsigned_per_s,
            subscription_limits=_subscriptions(settings.subscriptions_per_account),
        )
        where = settings.stun_listen
        self._stun = StunServer(_usual(settings.listen) if where is None else where)
        self._stun_is_wanted = where is not None
        self._state_dir = settings.state_dir
        self._home_agent, self._began = home_agent, time.monotonic()
        self._showing = Showing(settings.state_dir / SOCKET_NAME, self.status)
        self._end = asyncio.Event()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serves until :meth:`stop`. Raises :class:`~discovery.io_serve.ServeError`."""
        await self.server.start()
        try:
            await self._start_stun()
            await self._start_showing()
            self._drop()
            on_ready()
            await self._end.wait()
        finally:
            await self._showing.stop()
            self._stun.stop()
            await self.server.stop()

    async def _start_stun(self) -> None:
        """Where the usual ports are taken, and no others are named, the zone is served without."""
        try:
            await self._stun.start()
        except ListenError as error:
            if self._stun_is_wanted:
                raise ServeError(str(error)) from error
            say(f"hosts behind NATs are not told where they are seen: {error}")

    async def _start_showing(self) -> None:
        """The zone is served also where its owner cannot be shown how."""
        try:
            await self._showing.start()
        except ControlError as problem:
            say(f"`serve --status` will say nothing: {problem}")

    def status(self) -> dict[str, Any]:
        """What ``serve --status`` shows."""
        uptime = int(time.monotonic() - self._began)
        pid = os.getpid() if self._home_agent is None else os.getppid()  # whom to end
        facts = {"pid": pid, "uptime_s": uptime, "home_agent": self._home_agent}
        return {**facts, **self.server.status()}

    def _drop(self) -> None:
        if self._state_dir.stat().st_uid != os.geteuid():
            say(f"capabilities are kept, since {self._state_dir} belongs to another user")
            return
        privilege.drop_all()

    async def stop(self) -> None:
        """Ends :meth:`run`."""
        self._end.set()


def _subscriptions(most: int) -> SubscriptionLimits:
    return SubscriptionLimits(LlqLimits(per_account=most), PushLimits(per_account=most))


def _usual(listen: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    hosts = dict.fromkeys(host for host, _ in listen)
    return tuple((host, port) for host in hosts for port in STUN_PORTS)


def zone_account(settings: ServeConfig, account: ServeAccount) -> ZoneAccount:
    """An account as the zone machine wants it. Raises :class:`keys.store.SecretFileError`."""
    known = store.load_account(account.domain, settings.account_secret_path(account))
    return ZoneAccount(
        domain=known.domain,
        tsig_secret=known.tsig_secret,
        account_secret=known.secret,
        invitation_key=known.invitation_key,
        legacy_md5=account.legacy_md5,
        limits=zone_limits(account),
        rates=RateLimits(account.updates_per_s, account.queries_per_s),
        backing=_backing(settings, account),
    )


def _backing(settings: ServeConfig, account: ServeAccount) -> Backing | None:
    if account.backing_endpoint is None:
        return None
    if account.backing_key_file is None:
        return Backing(account.backing_endpoint)
    path = settings.path.parent / account.backing_key_file
    try:
        key = keyfile.parse(store.read_secret(path).decode("latin-1"))
    except keyfile.KeyFileError as problem:
        fix = "put the TSIG key there that the zone's server knows, as tsig-keygen writes it"
        raise store.SecretFileError(f"{path}: {problem}; {fix}") from None
    return Backing(account.backing_endpoint, key)


def zone_limits(account: ServeAccount) -> ZoneLimits:
    """What an account may keep in its zone."""
    return ZoneLimits(names=account.names, records=account.records)
