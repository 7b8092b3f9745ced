"""What all SAs of one endpoint share: who we are, our tables, and the commands being gathered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from keys.ike import groups
from keys.ike.certificates import Certification, Certified
from keys.ike.cookie import CookieJar
from keys.ike.groups import Encapsulate
from keys.ike.payloads import Identity
from keys.ike.settings import IkeSettings
from keys.ike.types import Command, Endpoint, IkeLog, Ppk, SendIke
from keys.ike.window import Datagrams, Echoes

if TYPE_CHECKING:
    from keys.ike.sa import IkeSa

_SPI_OCTETS = 8
_FIRST_CHILD_SPI = 256  # 0 to 255 are reserved (RFC 4303 §2.1)


class Limiter:
    """At most ``rate`` a second, for what strangers can make us do (RFC 7296 §2.21.4)."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._left = float(rate)
        self._at: float | None = None

    def allows(self, now: float) -> bool:
        """Whether one more may happen at ``now``."""
        if self._at is not None:
            self._left = min(float(self._rate), self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class HalfOpen:
    """How many half-open SAs there are, in all and from each source: an IPv4 address, or the /64
    of an IPv6 address, since a host has all of that."""

    def __init__(self) -> None:
        self._sources: Counter[str] = Counter()
        self.total = 0

    def add(self, remote: Endpoint) -> None:
        """One more."""
        self._sources[_source(remote)] += 1
        self.total += 1

    def remove(self, remote: Endpoint) -> None:
        """One less; nothing is kept about a source that has none."""
        source = _source(remote)
        self._sources[source] -= 1
        self.total -= 1
        if self._sources[source] <= 0:
            del self._sources[source]

    def of(self, remote: Endpoint) -> int:
        """How many there are from the source of ``remote``."""
        return self._sources.get(_source(remote), 0)

    def __len__(self) -> int:
        return len(self._sources)


def _source(remote: Endpoint) -> str:
    address = ip_address(remote[0].partition("%")[0])
    return str(address) if address.version == 4 else str(IPv6Address(int(address) >> 64 << 64))


class Context:
    """Shared by all SAs of one :class:`~keys.ike.endpoint.IkeEndpoint`."""

    def __init__(
        self,
        local_name: str,
        secret_for: Callable[[str], bytes | None],
        random: Callable[[int], bytes],
        settings: IkeSettings,
        certification: Certification | None = None,
        encapsulate: Encapsulate = groups.encapsulate,
        ppks: Mapping[str, Ppk] | None = None,
    ) -> None:
        self.local_name = local_name.lower()
        self.identity = Identity.fqdn(self.local_name)
        self.secret_for = secret_for
        self.certification = certification
        self.unix = 0
        self.random = random
        self.encapsulate = encapsulate
        self.ppks = {name.lower(): ppk for name, ppk in (ppks or {}).items()}
        self.settings = settings
        self.locals: tuple[Endpoint, ...] = ()
        self.inner: tuple[Endpoint, ...] = ()  # inside a NAT
        self.counters: Counter[str] = Counter()
        self.cookies = CookieJar(random, settings.cookie_secret_lifetime)
        self.echoes = Echoes()
        self.half_open = HalfOpen()
        self.asks: dict[int, IkeSa] = {}
        self._by_spi: dict[bytes, IkeSa] = {}
        self._by_name: dict[str, list[IkeSa]] = {}
        self._by_request: dict[bytes, IkeSa] = {}  # digest of IKE_SA_INIT → half-open SA
        self._child_spis: set[int] = set()
        self._strangers = Limiter(settings.answers_per_second)
        self._lines = Limiter(settings.answers_per_second)
        self._notable = Limiter(settings.notable_lines_per_second)
        self._commands: list[Command] = []
        self._order = 0
        self._ticket = 0

    # --- commands ---

    def emit(self, command: Command) -> None:
        """Adds a command to what the present call returns."""
        self._commands.append(command)

    def send(self, message: bytes | Datagrams, remote: Endpoint) -> None:
        """Sends an IKE message, or its fragments."""
        for data in (message,) if isinstance(message, bytes) else message:
            self.emit(SendIke(data, remote))

    def log(self, level: str, text: str) -> None:
        """A line about an authenticated peer or about ourselves."""
        self.emit(IkeLog(level, text))

    def complain(self, counter: str, text: str, now: float, level: str = "debug") -> None:
        """Counts what a stranger did, and writes a line about it unless there are too many; lines
        that everybody sees are fewer."""
        self.counters[counter] += 1
        if level != "debug" and not self._notable.allows(now):
            level = "debug"
        if self._lines.allows(now):
            self.log(level, text)

    def answer_stranger(self, data: bytes, remote: Endpoint, now: float) -> None:
        """An unprotected error answer, at a limited rate."""
        if self._strangers.allows(now):
            self.send(data, remote)

    def take(self) -> list[Command]:
        """The commands gathered since the last call."""
        commands, self._commands = self._commands, []
        return commands

    def certified(self, name: str) -> Certified | None:
        """How this peer and we prove ourselves with certificates; None: with a pre-shared key."""
        return self.certification.for_peer(name) if self.certification else None

    # --- numbers ---

    def uniform(self) -> float:
        """Uniform in [0, 1)."""
        return int.from_bytes(self.random(4), "big") / 2**32

    def order(self) -> int:
        """Numbers events in the order in which they happen at this endpoint."""
        self._order += 1
        return self._order

    def ticket(self) -> int:
        """For a question to the owner."""
        self._ticket += 1
        return self._ticket

    def new_spi(self) -> bytes:
        """An IKE SPI of ours that is not zero and not in use (RFC 7296 §2.6)."""
        while True:
            spi = self.random(_SPI_OCTETS)
            if any(spi) and spi not in self._by_spi:
                return spi

    def new_child_spi(self) -> int:
        """An inbound ESP SPI, unpredictable and not in use; give it back with ``free_spi``."""
        while True:
            spi = int.from_bytes(self.random(4), "big")
            if spi >= _FIRST_CHILD_SPI and spi not in self._child_spis:
                self._child_spis.add(spi)
                return spi

    def free_spi(self, spi: int) -> None:
        """This inbound ESP SPI is not in use any more."""
        self._child_spis.discard(spi)

    @property
    def own(self) -> tuple[Endpoint, ...]:
        """All our endpoints; seen at one of them, we are seen through no NAT. What only a NAT's
        outside shows is nothing to compare with before it is known."""
        return (*self.locals, *self.inner) if self.locals else ()

    # --- tables ---

    def add(self, sa: IkeSa) -> None:
        """From now on datagrams find this SA by our SPI."""
        self._by_spi[sa.local_spi] = sa

    def remove(self, sa: IkeSa) -> None:
        """Nothing finds this SA any more."""
        self._by_spi.pop(sa.local_spi, None)
        self._unname(sa)
        if sa.request_digest is not None:
            self._by_request.pop(sa.request_digest, None)
        if sa.ticket is not None:
            self.asks.pop(sa.ticket, None)

    def rename(self, sa: IkeSa, name: str | None) -> None:
        """Its peer is known as ``name`` from now on; SAs that are gone find no place."""
        self._unname(sa)
        if name is not None and sa.local_spi in self._by_spi:
            self._by_name.setdefault(name, []).append(sa)

    def _unname(self, sa: IkeSa) -> None:
        named = self._by_name.get(sa.name, []) if sa.name is not None else []
        if sa in named:
            named.remove(sa)
            if not named and sa.name is not None:
                del self._by_name[sa.name]

    def find(self, spi: bytes) -> IkeSa | None:
        """The SA with this SPI of ours."""
        return self._by_spi.get(spi)

    def remember_request(self, request: bytes, sa: IkeSa) -> None:
        """By the digest of its IKE_SA_INIT a retransmission finds the SA that it made."""
        self._by_request[request] = sa

    def by_request(self, request: bytes) -> IkeSa | None:
        """The SA that this very IKE_SA_INIT request made."""
        return self._by_request.get(request)

    def __iter__(self) -> Iterator[IkeSa]:
        return iter(list(self._by_spi.values()))

    def __len__(self) -> int:
        return len(self._by_spi)

    def named(self, name: str) -> list[IkeSa]:
        """All SAs with this peer, oldest first, attempts included."""
        return sorted(self._by_name.get(name, ()), key=lambda sa: sa.created_order)

    def standing(self, name: str) -> list[IkeSa]:
        """The established SAs with this peer."""
        return [sa for sa in self.named(name) if sa.is_established]

    def current(self, name: str) -> IkeSa | None:
        """The SA on which we talk to this peer: of several, one that is not about to go."""
        standing = self.standing(name)
        lasting = [sa for sa in standing if not sa.redundant]
        candidates = lasting or standing
        return candidates[-1] if candidates else None
