"""Redeeming a token over the network: pin first, then one signed question (decision 0004).

The token's pin is checked before the first octet. With the secret in hand, the connection's key is
proven once more by the account's own signed record (decision 0003), so that a token without a pin
ends in a known rendezvous too, or not at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from discovery import pinning
from discovery.exchange import Request
from discovery.io_transport import LinkError, StreamLink, check_pin
from discovery.redeem import RedeemError, Redemption
from discovery.types import Endpoint, TsigKey
from keys.account import Account, AccountSecretError
from keys.invitation import Invitation
from keys.store import random_bytes
from tunnel.cli.talk import Failure
from tunnel.config import DEFAULT_DNS_PORT

_TRIES = 3
_PATIENCE = 6.0  # seconds for one try: connection, handshake, question and answer
_PAUSE = 0.5  # seconds between two tries
_T = TypeVar("_T")


async def redeem(invited: Invitation) -> bytes:
    """The account secret that the token stands for. Raises :class:`Failure` with cause and fix.

    The nonce stays the same in all tries, since the rendezvous bound the token to it.
    """
    redemption = Redemption.begin(
        invited.domain, invited.identity, invited.expires, invited.key, random_bytes
    )
    said = ""
    for attempt in range(_TRIES):
        try:
            async with asyncio.timeout(_PATIENCE):
                return await _try(invited, redemption)
        except RedeemError as problem:
            said = str(problem)
            if not problem.temporary:
                break
        except TimeoutError:
            said = f"the rendezvous {invited.server} does not answer; is it running and reachable?"
        except (LinkError, OSError) as problem:  # ssl.SSLError is an OSError too
            said = _network_words(invited, problem)
        if attempt + 1 < _TRIES:
            await asyncio.sleep(_PAUSE)
    raise Failure(said)


def _network_words(invited: Invitation, problem: LinkError | OSError) -> str:
    if isinstance(problem, LinkError):
        return str(problem)
    if isinstance(problem, ConnectionRefusedError):
        return f"the rendezvous {invited.server} refuses the connection; check that it runs"
    words = problem.strerror or str(problem)
    return f"the rendezvous {invited.server} cannot be reached ({words}); check the network"


async def _try(invited: Invitation, redemption: Redemption) -> bytes:
    tls = invited.tls_port is not None
    server: Endpoint = (invited.server, invited.tls_port or invited.dns_port or DEFAULT_DNS_PORT)
    link = await StreamLink.open(server, tls)
    try:
        if tls and invited.pin is not None:
            _check_pin(link, invited.pin, server)
        request = redemption.ask(_message_id(), int(time.time()))
        secret = await _ask(
            link, request, lambda wire: redemption.take(request, wire, int(time.time()))
        )
        if tls:
            await _prove(link, invited.domain, secret)
        return secret
    finally:
        link.close()


def _check_pin(link: StreamLink, pin: bytes, server: Endpoint) -> None:
    """Raises :class:`Failure`: trying again would only give somebody in the middle more tries."""
    try:
        check_pin(link, pin, server)
    except LinkError as problem:
        raise Failure(str(problem)) from None


async def _prove(link: StreamLink, domain: str, secret: bytes) -> None:
    """Raises :class:`Failure` unless the account's zone names this connection's key."""
    try:
        account = Account(domain, secret)
    except AccountSecretError as problem:
        raise Failure(f"the rendezvous handed out no account secret ({problem})") from None
    key = TsigKey(account.tsig_name, account.tsig_secret)
    request = pinning.ask(account.domain, _message_id(), key, int(time.time()))
    verdict = await _ask(
        link,
        request,
        lambda wire: pinning.judge(request, wire, int(time.time()), link.pin) or None,
    )
    if isinstance(verdict, str):
        raise Failure(verdict)


async def _ask(link: StreamLink, request: Request, take: Callable[[bytes], _T | None]) -> _T:
    """Sends a request and gives what ``take`` makes of its answer, past foreign messages."""
    link.send(request.wire)
    while (wire := await link.receive()) is not None:
        taken = take(wire)
        if taken is not None:
            return taken
    raise LinkError("it closed the connection without an answer")


def _message_id() -> int:
    return int.from_bytes(random_bytes(2))
