"""Captive portals: a network that answers for others until somebody has logged in.

Asked only while the rendezvous cannot be: an HTTP request to the rendezvous' own address, on the
port that portals watch. It names nothing of ours. What is there of its own on such a port is known
to the person, and answers with its own pages; a portal redirects, or says 511 (RFC 6585 §6).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PORT: Final = 80
MAX_ANSWER: Final = 4096  # octets that are looked at
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r?\n)")
_LOCATION: Final = re.compile(rb"(?im)^location:[ \t]*([!-~]{1,500})[ \t]*\r?$")
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_LOGIN: Final = 511  # Network Authentication Required


@dataclass(frozen=True, slots=True)
class Portal:
    """Somebody else answered; ``where`` is the page that it sends people to, if it says one."""

    where: str


def request(address: str) -> bytes:
    """What is sent to the rendezvous' address."""
    host = f"[{address}]" if ":" in address else address
    return f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def judge(answer: bytes, address: str) -> Portal | None:
    """Whether the octets that came back are a portal's; one at the same address is none."""
    head = answer[:MAX_ANSWER].partition(b"\r\n\r\n")[0]
    status = _STATUS.match(head)
    if status is None:
        return None
    code, location = int(status[1]), _LOCATION.search(head)
    where = location[1].decode("ascii") if location else ""
    if code == _LOGIN:
        return Portal(where)
    own = re.match(rf"https?://\[?{re.escape(address)}\]?([:/]|$)", where)
    elsewhere = "://" in where and own is None
    return Portal(where) if code in _REDIRECTS and elsewhere else None
