"""Two questions to the network itself: is there a NAT64, and does a portal stand before us?"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Network

from discovery.nat import nat64, portal

_PATIENCE = 3.0  # seconds


async def nat64_prefix() -> IPv6Network | None:
    """What the system's resolver says of :data:`discovery.nat.nat64.NAME`; ``None``: nothing."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await loop.getaddrinfo(
                nat64.NAME, None, family=socket.AF_INET6, type=socket.SOCK_DGRAM
            )
    except (OSError, TimeoutError):
        return None
    return nat64.prefix_of(IPv6Address(str(one[4][0]).partition("%")[0]) for one in found)


async def portal_before(address: str, port: int = portal.PORT) -> portal.Portal | None:
    """Whether somebody else answers HTTP in the place of ``address``."""
    writer = None
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(address, port, limit=portal.MAX_ANSWER)
            writer.write(portal.request(address))
            answer = b""
            while len(answer) < portal.MAX_ANSWER and b"\r\n\r\n" not in answer:
                piece = await reader.read(portal.MAX_ANSWER)
                if not piece:
                    break
                answer += piece
    except (OSError, TimeoutError):
        return None
    finally:
        if writer is not None:
            with suppress(OSError):
                writer.close()
    return portal.judge(answer, address)
