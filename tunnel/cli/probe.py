"""One look at the rendezvous: does it answer, is its key the right one, does it take our signature?

Used by ``doctor``, and by ``invite`` to learn the pin where it is not known yet.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

import dns.name
import dns.rdatatype

from discovery import exchange, rcodes
from discovery.exchange import Rejection
from discovery.io_transport import ZoneTransport
from discovery.types import Endpoint, TsigKey
from keys.account import Account
from tunnel.config import HostConfig

_PATIENCE = 8.0  # seconds; above the transport's own 5 s, so that its words come first


@dataclass(frozen=True, slots=True)
class Seen:
    """What the look found: the pin of the server's TLS key (``None`` without TLS), or what is
    wrong, in one sentence with cause and fix."""

    pin: bytes | None
    problem: str | None


async def look(
    settings: HostConfig, server: Endpoint, account: Account, patience: float = _PATIENCE
) -> Seen:
    """Connects as ``up`` would, and asks one signed question. Never raises for the network."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str | None] = loop.create_future()
    key = TsigKey(account.tsig_name, account.tsig_secret)
    zone = dns.name.from_text(account.tsig_name)
    identity = int.from_bytes(os.urandom(2))
    request = exchange.signed_query(zone, int(dns.rdatatype.SOA), identity, key, int(time.time()))

    def end(problem: str | None) -> None:
        if not ended.done():
            ended.set_result(problem)

    def judge(wire: bytes) -> None:
        judgement = exchange.judge(request, wire, int(time.time()))
        if not isinstance(judgement, Rejection):
            end(None if judgement.rcode == rcodes.NOERROR else _refusal(account, judgement.says))
        elif judgement.kind != "foreign":
            end(judgement.reason)

    transport = ZoneTransport(
        server=server,
        transport=settings.rendezvous.transport,
        domain=account.domain,
        key=key,
        pin=settings.rendezvous.pin_octets,
        on_message=judge,
        on_up=lambda: transport.send(request.wire),
        on_down=end,
    )
    transport.start()
    try:
        problem = await asyncio.wait_for(ended, patience)
    except TimeoutError:
        problem = f"{server[0]} port {server[1]} does not answer; check that the rendezvous runs"
    finally:
        await transport.stop()
    return Seen(transport.pin if problem is None else None, problem)


def _refusal(account: Account, says: str) -> str:
    return f"the rendezvous does not serve {account.domain} ({says}); check [account] domain"
