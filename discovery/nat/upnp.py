"""UPnP IGD 1 and 2: one UDP port at one gateway's WAN connection service.

Only the decisions: which action comes next, and what its errors mean. Finding the gateway, XML
and HTTP are ``io_upnp``'s. A gateway of version 1 may know permanent mappings only, or refuse a
port that another host holds; none tells when it restarted, so that the mapping is looked up again
from time to time (sheet §3, "Client strategy").
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Table

from discovery.nat.types import (
    UNSPECIFIED,
    Endpoint,
    Mapped,
    Mapping,
    NatCommand,
    NotMapped,
    UpnpCall,
)

LIFETIME = 7200  # seconds
LOOK_AGAIN = 900.0  # seconds: whether the mapping is still there
AGAIN = 300.0  # seconds after a refusal
PORTS = 4  # other external ports that are tried after a conflict
DESCRIPTION = "autotunnel"

ACTION_FAILED, NOT_AUTHORIZED, NO_SUCH_ENTRY = 501, 606, 714
CONFLICT, SAME_PORTS, ONLY_PERMANENT = 718, 724, 725
UNKNOWN_ACTION = 401
_WORDS = {
    NOT_AUTHORIZED: "it refuses mappings (allow UPnP port mapping in the router)",
    728: "it has no more mappings to give",
    729: "another mechanism holds this port",
}

_ADDRESS, _ADD, _ADD_ANY = "GetExternalIPAddress", "AddPortMapping", "AddAnyPortMapping"
_LOOK, _DELETE = "GetSpecificPortMappingEntry", "DeletePortMapping"


class UpnpClient:
    """One mapping at one gateway's service of ``version`` 1 or 2. ``local`` is our endpoint."""

    def __init__(
        self,
        gateway: str,
        local: Endpoint,
        random: Callable[[int], bytes],
        *,
        version: int = 1,
        lifetime: int = LIFETIME,
        wish: int | None = None,
    ) -> None:
        self.gateway, self.local = gateway, local
        self._random, self._any = random, version >= 2
        self._lifetime = lifetime
        self._port = local[1] if wish is None else wish
        self._mapping: Mapping | None = None
        self._ticket = 0
        self._asked: str | None = None
        self._conflicts, self._failed_once = 0, False
        self._due: float | None = None
        self._renew = 0.0

    @property
    def mapping(self) -> Mapping | None:
        """What the gateway granted last."""
        return self._mapping

    def next_timer(self) -> float | None:
        """When :meth:`advance` has something to do."""
        return self._due

    def start(self, now: float) -> list[NatCommand]:
        """Ask for all anew, now; also when the gateway said that it restarted (BOOTID)."""
        self._conflicts, self._failed_once = 0, False
        self._due = now + AGAIN  # should no answer ever come
        return self._add()

    def stop(self) -> list[NatCommand]:
        """Delete the mapping: one made without an end would stay for ever."""
        self._due, self._asked = None, None
        if self._mapping is None:
            return []
        self._mapping = None
        return [self._call(_DELETE, *self._key(), remember=False)]

    def advance(self, now: float) -> list[NatCommand]:
        """Renews the mapping, or looks whether it is still there, or begins again."""
        if self._due is None or now < self._due:
            return []
        if self._mapping is None or now >= self._renew:
            return self.start(now)
        self._due = now + AGAIN
        return [self._call(_LOOK, *self._key())]

    def answered(self, ticket: int, values: Table[str, object], now: float) -> list[NatCommand]:
        """The gateway did it; ``values`` are the action's out arguments."""
        if ticket != self._ticket or self._asked is None:
            return []
        action, self._asked = self._asked, None
        if action == _LOOK:
            return self._looked(values, now)
        if action == _ADDRESS:
            return self._addressed(values, now)
        reserved = values.get("NewReservedPort")
        if isinstance(reserved, int) and 0 < reserved < 65536:
            self._port = reserved
        return [self._call(_ADDRESS)]

    def failed(self, ticket: int, code: int | None, text: str, now: float) -> list[NatCommand]:
        """It refused with UPnP's error ``code``, or did not answer (``None``)."""
        if ticket != self._ticket or self._asked is None:
            return []
        action, self._asked = self._asked, None
        if action == _LOOK:
            return self.start(now)
        if action in (_ADD, _ADD_ANY):
            again = self._instead(code, action)
            if again:
                return again
        said = _WORDS.get(code or 0) or (
            f"its UPnP answered {code} {text}" if code else f"its UPnP does not answer ({text})"
        )
        return self._none(now, said)

    # --- Inside -----------------------------------------------------------------------------

    def _instead(self, code: int | None, action: str) -> list[NatCommand]:
        """What else to ask for; nothing: it was the last word."""
        if code == UNKNOWN_ACTION and action == _ADD_ANY:
            self._any = False
        elif code == ONLY_PERMANENT and self._lifetime:
            self._lifetime = 0
        elif code == CONFLICT and self._conflicts < PORTS:
            self._conflicts += 1
            self._port = 49152 + int.from_bytes(self._random(2), "big") % 16384
        elif code == SAME_PORTS and self._port != self.local[1]:
            self._port = self.local[1]
        elif code == ACTION_FAILED and not self._failed_once:
            self._failed_once, self._lifetime = True, 0
        else:
            return []
        return self._add()

    def _add(self) -> list[NatCommand]:
        arguments: tuple[tuple[str, str | int | bool], ...] = (
            *self._key(),
            ("NewInternalPort", self.local[1]),
            ("NewInternalClient", self.local[0]),
            ("NewEnabled", True),
            ("NewPortMappingDescription", DESCRIPTION),
            ("NewLeaseDuration", self._lifetime),
        )
        return [self._call(_ADD_ANY if self._any else _ADD, *arguments)]

    def _key(self) -> tuple[tuple[str, str | int | bool], ...]:
        return (
            ("NewRemoteHost", ""),
            ("NewExternalPort", self._port),
            ("NewProtocol", "UDP"),
        )

    def _addressed(self, values: Table[str, object], now: float) -> list[NatCommand]:
        address = str(values.get("NewExternalIPAddress") or UNSPECIFIED)
        external = (address, self._port)
        self._mapping = Mapping("upnp", self.gateway, self.local, external, self._lifetime)
        self._renew = now + (self._lifetime / 2 or LOOK_AGAIN * 4)
        self._due = min(self._renew, now + LOOK_AGAIN)
        return [Mapped(self._mapping)]

    def _looked(self, values: Table[str, object], now: float) -> list[NatCommand]:
        """The entry is there; is it still ours? Then the address is asked for again, too."""
        mine = (self.local[0], self.local[1])
        if (str(values.get("NewInternalClient")), values.get("NewInternalPort")) != mine:
            return self.start(now)
        self._due = min(self._renew, now + LOOK_AGAIN)
        return [self._call(_ADDRESS)]

    def _none(self, now: float, reason: str) -> list[NatCommand]:
        self._mapping, self._due = None, now + AGAIN
        return [NotMapped("upnp", self.gateway, reason)]

    def _call(
        self, action: str, *arguments: tuple[str, str | int | bool], remember: bool = True
    ) -> UpnpCall:
        self._ticket += 1
        self._asked = action if remember else None
        return UpnpCall(self._ticket, action, arguments)
