"""Asking the rendezvous to redeem an invitation, over TLS or TCP, with a few attempts."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from typing import Final

from discovery.io_connect import plain
from discovery.io_link import LinkError, StreamLink, check_pin
from discovery.redeem import RedeemError, Redemption
from discovery.types import Endpoint

ATTEMPTS: Final = 3
ATTEMPT_TIMEOUT: Final = 5.0  # seconds
_PAUSE: Final = 0.5  # seconds, times the number of the attempt


async def redeem(
    *,
    server: str,
    dns_port: int | None,
    tls_port: int | None,
    domain: str,
    identity: bytes,
    expires: int,
    key: bytes,
    pin: bytes | None = None,
    attempts: int = ATTEMPTS,
) -> bytes:
    """Return the account secret for what an invitation token says. Raises :exc:`RedeemError`.

    TLS is used if the rendezvous serves it, and its key is compared with ``pin`` before the first
    octet is sent. All attempts use one nonce, so that a lost answer does not burn the invitation.
    """
    redemption = Redemption.begin(domain, identity, expires, key, os.urandom)
    port = tls_port or dns_port
    if port is None:
        raise RedeemError("the invitation names no port of the rendezvous; make a new one")
    for attempt in range(1, attempts + 1):
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT):
                return await _attempt(redemption, (server, port), tls_port is not None, pin)
        except (OSError, LinkError, TimeoutError) as error:
            if attempt == attempts:
                raise _unreachable((server, port), error) from error
            await asyncio.sleep(_PAUSE * attempt)
    raise AssertionError("the last attempt returns or raises")


async def _attempt(redemption: Redemption, server: Endpoint, tls: bool, pin: bytes | None) -> bytes:
    link = await StreamLink.open(server, tls)
    try:
        if tls and pin is not None:
            try:
                check_pin(link, pin, server)
            except LinkError as error:  # no attempt will change it
                raise RedeemError(str(error)) from error
        request = redemption.ask(int.from_bytes(os.urandom(2)), int(time.time()))
        link.send(request.wire)
        while True:
            wire = await link.receive()
            if wire is None:
                raise LinkError("the connection was closed without an answer")
            secret = redemption.take(request, wire, int(time.time()))
            if secret is not None:
                return secret
    finally:
        link.close()


def _unreachable(server: Endpoint, error: Exception) -> RedeemError:
    host, port = server
    if isinstance(error, TimeoutError):
        words = "no answer"
    elif isinstance(error, ssl.SSLError):
        words = "it does not speak TLS as expected"
    else:
        words = plain(error) if isinstance(error, OSError) else str(error).lower()
    return RedeemError(
        f"the rendezvous {host} port {port} cannot be reached ({words}); "
        "check the network and try the same token again",
        temporary=True,
    )
