"""Words of the data path that both engines share (RFC 4303, RFC 3948).

Nothing here does work: these are the values that cross the border between the control
plane and an engine. Addresses are 16-octet ``bytes`` for host ids and ``(ip, port)`` for
endpoints, because that is what both engines look up; SPIs are ``int`` in 256..2^32-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol, TypeAlias

Endpoint: TypeAlias = tuple[str, int]
"""An outer (address text, UDP port); IPv6 text is compressed lower case, never v4-mapped."""

Source: TypeAlias = tuple[str, int]
"""Where a datagram leaves: an outer address of ours, and the index of the interface that has it."""

REPLAY_WINDOW = 4096
"""Anti-replay window in packets; RFC 4303 §3.4.3 asks for 64, fast links for 1,024 or more."""


class Suite(StrEnum):
    """An AEAD with its key size, spelled as strongSwan spells it."""

    AES128GCM16 = "aes128gcm16"
    AES256GCM16 = "aes256gcm16"
    CHACHA20POLY1305 = "chacha20poly1305"

    @property
    def key_octets(self) -> int:
        """Cipher key length in octets, without the 4-octet salt (RFC 4106 §8.1, RFC 7634 §2)."""
        return 16 if self is Suite.AES128GCM16 else 32


SALT_OCTETS = 4
IV_OCTETS = 8
TAG_OCTETS = 16
ESP_HEADER_OCTETS = 8

SOFT_LIMIT_PACKETS = 2**31
"""After so many packets an outbound SA asks once for a new one (ikev2_esp §13; half of 2^32)."""

UNKNOWN_SPI_EVENTS_PER_SECOND = 5
"""So many :class:`UnknownSpiEvent` a second reach the control plane; every packet is counted."""

MINIMUM_MTU = 1280
"""No inner packet up to this size is ever refused for its size (RFC 8200 §5)."""

NO_LIMIT = 65_535
"""The MTU of a flow that sets none."""

QUOTE_OCTETS = MINIMUM_MTU - 40 - 8
"""So much of a packet fits into the ICMPv6 error about it (RFC 4443 §2.4(c))."""

TOO_BIG_EVENTS_PER_SECOND = 10
"""So many :class:`TooBigEvent` a second a flow gives; every packet is counted."""

DUMMY_HEAD_OCTETS = 32
DUMMY_EVENTS_PER_SECOND = 32
"""So many octets of a dummy packet, and of :class:`DummyEvent` a second and SA, are told."""

NEW_SOURCE_EVENTS_PER_SECOND = 32
"""Of one SA: who has its keys, or sends its packets on by turns from two places, fills no queue."""

MOBILITY_OCTETS = MINIMUM_MTU
MOBILITY_EVENTS_PER_SECOND = 32
"""A Mobility Header is so long at most, and of :class:`MobilityEvent` a second and SA so many are
told; RFC 6275 §11.8 allows three of a kind."""

RELAY_PORT = 500
"""IKE inside a nested packet; the port of a relay endpoint, ``(text of a host id, 500)``."""

RELAYS_REMEMBERED = 1024
"""So many host ids whose relay entry is gone are still known to be no outer address."""

RELAY_SHARES = 8
"""An eighth of a home agent's limit is for each host, whatever others send: see
:meth:`Pump.set_relay_limit`."""

RELAYED_PROBES_PER_SECOND = 256
"""Of one relay SA: a home agent sends a path MTU probe by itself, with its socket set for it, which
costs more than another packet and has others wait. A host asks for three sizes of a path at a time;
a probe that is dropped counts as lost, and is sent again (RFC 8899 §3)."""

RELAY_BURST_OCTETS = 64 * 1024
"""A home agent's limit lets so much pass at once, or what it allows in a tenth of a second."""

EVENT_QUEUE_PACKETS = 1024
EVENT_QUEUE_OCTETS = 2 * 1024 * 1024
"""A pump keeps at most so many undrained events and payload octets, else ``QUEUE_FULL``."""

EVENT_QUEUE_STRANGERS = 512
"""So many of them may be first messages of strangers (IKE_SA_INIT requests): a flood of those
leaves room for what known peers say and for what our own applications want."""


class SequenceExhausted(Exception):  # noqa: N818 - a state of the SA, not a fault of the caller
    """The outbound SA has used its last sequence number and must never wrap (RFC 4303 §3.3.3)."""


class Mode(StrEnum):
    """What stands behind the ESP header: a whole inner packet, or its upper layer only."""

    TUNNEL = "tunnel"
    TRANSPORT = "transport"


ANY_PORT = (0, 65_535)

NARROW_WAYS = 4
"""So many SAs beside its first one a flow may choose from."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which packets between two host ids an SA is for (RFC 4301 §4.4.1.1).

    ``protocol`` is the number of the upper layer, 0 for any; ports are first and last. ICMPv6 (58)
    has type × 256 + code for both ports, the Mobility Header (135) its type × 256.
    """

    protocol: int = 0
    local_ports: tuple[int, int] = ANY_PORT
    peer_ports: tuple[int, int] = ANY_PORT


@dataclass(frozen=True, slots=True)
class SaParams:
    """One direction of an ESP security association, bound to two host ids, never to an endpoint.

    ``key`` is the cipher key followed by the salt (KEYMAT order, RFC 7296 §2.17).
    ``local_id`` and ``peer_id`` are 16 octets. Inbound: the inner source must be ``peer_id``
    and the inner destination ``local_id``; outbound: the other way round (RFC 4303 §3.4.4).
    ``traffic``: no other packets between the two are taken from an inbound SA.
    """

    spi: int
    suite: Suite
    key: bytes = field(repr=False)
    local_id: bytes
    peer_id: bytes
    esn: bool = True
    mode: Mode = Mode.TUNNEL
    replay_window: int = REPLAY_WINDOW
    traffic: Traffic | None = None


class Drop(IntEnum):
    """Why a packet was not passed on. Counted by value; names are what ``status`` prints."""

    NONE = 0
    MALFORMED = 1  # too short, bad lengths, not IPv6
    UNKNOWN_SPI = 2
    REPLAY = 3  # left of the window or seen before
    AUTHENTICATION = 4  # the ICV did not verify
    PADDING = 5  # RFC 4303 §2.4 pattern broken
    SELECTOR = 6  # the inner addresses are not those of the SA
    NO_FLOW = 7  # no SA to that host id (the packet goes to the control plane)
    SEQUENCE_EXHAUSTED = 8
    DUMMY = 9  # next header 59, discarded by design
    KEEPALIVE = 10  # RFC 3948 §2.3
    TUN_WRITE = 11
    UDP_SEND = 12
    QUEUE_FULL = 13  # the event queue towards the control plane is full
    TOO_BIG = 14
    FOREIGN_SOURCE = 15  # an inner packet whose source is not our host id; a nested one's, its SA's
    NOT_RELAYED = 16  # a nested packet that goes nowhere: no relay entry, or neither ESP nor IKE
    RELAY_LIMIT = 17  # above what the home agent's limit allows, or too many probes


@dataclass(frozen=True, slots=True)
class Opened:
    """An authenticated ESP packet: the inner bytes, what they are, and its full sequence number."""

    payload: bytes
    next_header: int
    sequence: int


# --- Events: what a pump tells the control plane -------------------------------------------


@dataclass(frozen=True, slots=True)
class AcquireEvent:
    """An inner packet to a host id for which there is no flow. The packet is handed over whole."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class ControlEvent:
    """A datagram that is not ESP of a known SA: IKE (marker stripped) from ``source``.

    ``marker`` tells whether the non-ESP marker was there (strongSwan leaves it out when it
    sends from port 500), so that the answer can be framed alike. ``relay`` is the inbound relay SA
    that it came nested in, 0 for none, so that the answer can go the same way.
    """

    data: bytes
    source: Endpoint
    marker: bool
    relay: int = 0


@dataclass(frozen=True, slots=True)
class NewSourceEvent:
    """An authenticated, non-replayed packet of ``spi`` came from another endpoint than before.

    Only a packet with the highest sequence number so far says so (the first one of an SA does,
    too), so that a late or held-back packet never moves the endpoint back (ikev2_esp §14).
    """

    spi: int
    source: Endpoint


@dataclass(frozen=True, slots=True)
class LifetimeEvent:
    """The outbound ``spi`` nears the end of its sequence space (or its soft packet limit)."""

    spi: int


@dataclass(frozen=True, slots=True)
class UnknownSpiEvent:
    """ESP with an SPI that we do not hold (rate limited by the pump to a few a second)."""

    spi: int
    source: Endpoint


@dataclass(frozen=True, slots=True)
class DummyEvent:
    """An authenticated, non-replayed dummy packet of inbound ``spi`` that carried something.

    ``octets`` is the size of what it carried, ``head`` its first :data:`DUMMY_HEAD_OCTETS`.
    Path MTU probes and their answers are such packets (RFC 4303 §2.6, RFC 8899).
    """

    spi: int
    octets: int
    head: bytes


@dataclass(frozen=True, slots=True)
class TooBigEvent:
    """An inner packet was dropped, since it is larger than the ``largest`` of its flow.

    ``quote`` is its first :data:`QUOTE_OCTETS`, for the error that its sender gets.
    """

    quote: bytes
    largest: int


@dataclass(frozen=True, slots=True)
class MobilityEvent:
    """A packet of any SA whose upper layer is the Mobility Header (135), which never goes to TUN.

    ``message`` is that header (8..1280 octets, its checksum not looked at). ``source`` is the
    on-wire source, the care-of address that the control plane compares (I30, I34): a relay
    endpoint where the packet came nested.
    """

    spi: int
    source: Endpoint
    message: bytes


Event: TypeAlias = (
    AcquireEvent
    | ControlEvent
    | NewSourceEvent
    | LifetimeEvent
    | UnknownSpiEvent
    | DummyEvent
    | TooBigEvent
    | MobilityEvent
)


@dataclass(frozen=True, slots=True)
class SaCounters:
    """Inner octets and packets that one SA has passed, its drops by name, and when it last did.

    ``last_used`` is CLOCK_BOOTTIME in seconds (suspend-aware), or ``None`` if never.
    """

    packets: int
    octets: int
    last_used: float | None
    drops: dict[str, int]


class Offload(StrEnum):
    """Help of the kernel that a pump uses where it is there; without it, all works, slower."""

    TUN_CHECKSUM = "tun_checksum"  # TUN hands over packets whose checksum is left to us
    TUN_TSO4 = "tun_tso4"  # and takes and gives TCP in frames of up to 64 KB
    TUN_TSO6 = "tun_tso6"
    TUN_USO = "tun_uso"  # runs of datagrams, too
    UDP_SEGMENT4 = "udp_segment4"  # a run of packets in one send, cut by the kernel or the device
    UDP_SEGMENT6 = "udp_segment6"
    UDP_GRO4 = "udp_gro4"  # many datagrams in one receive
    UDP_GRO6 = "udp_gro6"


class OffloadState(StrEnum):
    """Whether an :class:`Offload` is in use, and what keeps it from it."""

    ON = "on"
    OFF = "off"  # switched off by who made the pump
    UNKNOWN = "unknown"  # this kernel does not have it
    REFUSED = "refused"  # the kernel has it, a link said no; it is tried again
    ABSENT = "absent"  # there is no socket of that family


class Queue(NamedTuple):
    """One queue of a TUN device opened with several, with the sockets that go with it. All queues
    are of one device, and all sockets of a family share one port; a family may be missing."""

    tun_fd: int
    udp4_fd: int | None
    udp6_fd: int | None


class Pump(Protocol):
    """Moves packets between a TUN device and a UDP socket, by the tables it is given.

    Calls come from one control thread. Tables may be changed while it runs; a change is seen
    by the next batch. ``install_*`` replaces an SA of the same SPI. Nothing here blocks.
    """

    engine: str  # "native" or "reference"
    aead: str  # e.g. "ipsec-mb 1.3 (AVX512)", "OpenSSL 3.0.22", "cryptography 50.0.2"

    def start(self) -> None:
        """Starts the threads. A pump is started once."""

    def stop(self) -> None:
        """Stops within 100 ms; threads are joined, descriptors stay open (the caller's)."""

    def install_inbound(self, sa: SaParams) -> None:
        """Opens what comes with ``sa.spi`` from now on."""

    def install_outbound(self, sa: SaParams) -> None:
        """Makes ``sa.spi`` ready to be named in a flow."""

    def remove_inbound(self, spi: int) -> None:
        """Forgets the SA and its key; an SPI that is not there is fine."""

    def remove_outbound(self, spi: int) -> None:
        """Forgets the SA and its key; an SPI that is not there is fine."""

    def set_flow(
        self,
        peer_id: bytes,
        spi: int,
        endpoint: Endpoint,
        mtu: int = NO_LIMIT,
        largest: int = NO_LIMIT,
        narrow: Sequence[tuple[Traffic, int]] = (),
    ) -> None:
        """Seals inner packets to ``peer_id`` with outbound ``spi`` and sends to ``endpoint``.

        Packets of a ``narrow`` traffic go on its SPI instead: on the first that holds them and is
        installed. More than :data:`NARROW_WAYS` are a :class:`ValueError`.

        Packets up to ``mtu`` octets are known to fit the path; large frames are cut so. Larger
        ones go as fragments (``fastpath.reference.inner.split``), those above ``largest`` are
        ``TOO_BIG``, and a :class:`TooBigEvent` says so. ``largest`` is 1280 at least: less,
        and an ``mtu`` that no header fits into (below 256), is a :class:`ValueError`.
        """

    def clear_flow(self, peer_id: bytes) -> None:
        """Inner packets to ``peer_id`` raise :class:`AcquireEvent` from now on."""

    def set_relay(
        self, host_id: bytes, spi: int, endpoint: Endpoint, forward: bool = False
    ) -> None:
        """What goes to the relay endpoint of ``host_id`` leaves nested, through a home agent.

        A relay endpoint is ``(text of a host id, any port)``. Flow data, :meth:`send`,
        :meth:`send_dummy` and :meth:`send_inner` to it become ``IPv6(our id -> host_id) | ESP``
        or ``… | UDP 500 | IKE`` (I47, I48, I10), sealed in outbound ``spi`` for ``endpoint``.
        That SA is a *relay SA*: transport mode with traffic of protocol 41 (RFC 3884); in no
        other one is anything nested. What comes out of an inbound relay SA for our host id is
        taken as if it had come from its source's relay endpoint.

        ``forward``, on a home agent: nested packets for ``host_id`` out of the relay SA of the
        host that is their source go the same way, with their hop limit one less. Probes among them
        (see :meth:`send_dummy`) above :data:`RELAYED_PROBES_PER_SECOND` are ``RELAY_LIMIT``.

        :class:`ValueError` for a host id or an endpoint that is none.
        """

    def clear_relay(self, host_id: bytes) -> None:
        """What goes to the relay endpoint of ``host_id`` is ``NOT_RELAYED`` from now on: a host
        id that was relayed is not taken for an outer address then. The last
        :data:`RELAYS_REMEMBERED` are known; one that was forwarded to is forgotten at once."""

    def set_relay_limit(self, octets_per_second: int) -> None:
        """All that is forwarded together passes at this rate, the rest is ``RELAY_LIMIT``;
        0: without limit. At once may pass what a tenth of a second allows, and
        :data:`RELAY_BURST_OCTETS`.

        And as much again, of hosts alone to which is forwarded, too, and which had no more than
        one of :data:`RELAY_SHARES` parts of the rate lately: so a host that floods takes from
        those that send much, and not from the others."""

    def send_inner(
        self, spi: int, endpoint: Endpoint, packet: bytes, source: Source | None = None
    ) -> None:
        """Seals an inner packet of our host id in outbound ``spi`` and sends it to exactly this
        ``endpoint`` (I30: the address under test, whatever the flow says).

        ``source``: it leaves from there and by that interface, whatever the routes prefer (I20).
        IPv6 takes the address that the kernel chooses on that interface: with one given, Linux
        looks for a route by the address alone. One that is gone is counted as ``UDP_SEND``. What
        goes to a relay endpoint leaves towards the home agent as ever: with a source, it is
        ``NOT_RELAYED``. :class:`ValueError` for one that is none, or of the other family.
        """

    def inject(self, packet: bytes) -> None:
        """Sends an inner packet as if it had just come from the TUN device."""

    def deliver(self, packet: bytes) -> None:
        """Writes an inner packet to the TUN device (ICMPv6 errors of our own)."""

    def send(self, datagram: bytes, endpoint: Endpoint, source: Source | None = None) -> None:
        """Sends a UDP payload as it is (IKE and STUN with their marker, keepalive); see
        :meth:`set_relay` for a relay endpoint, to which a keepalive is dropped. ``source``: as in
        :meth:`send_inner`."""

    def send_dummy(
        self, spi: int, endpoint: Endpoint, body: bytes = b"", whole: bool = False
    ) -> None:
        """Sends one ESP dummy packet (next header 59, RFC 4303 §2.6) on outbound ``spi``.

        ``body`` is what it carries. ``whole``: a path MTU probe, which arrives unfragmented or
        not at all (RFC 8899 §3); one that this machine's own link cannot take is lost. Through a
        home agent, it says so in the nested packet (any flow label), and is not fragmented there.
        """

    def offloads(self) -> dict[Offload, OffloadState]:
        """Those of UDP, and ``TUN_USO`` as far as TUN takes frames; whoever opened the device
        knows what it hands over."""

    def event_fd(self) -> int:
        """A descriptor that turns readable when ``drain`` has something."""

    def drain(self) -> list[Event]:
        """Takes all queued events, oldest first, and makes ``event_fd`` unreadable."""

    def counters(self) -> dict[str, int]:
        """Totals: ``rx_packets``, ``tx_packets``, ``rx_octets``, ``tx_octets`` (inner),
        ``relayed_packets``, ``relayed_octets`` (nested packets that were forwarded) and
        ``drop_<name>`` for every :class:`Drop` that happened."""

    def inbound_counters(self, spi: int) -> SaCounters | None:
        """What inbound ``spi`` has passed and dropped; ``None`` when there is no such SA."""

    def outbound_counters(self, spi: int) -> SaCounters | None:
        """What outbound ``spi`` has sealed; ``None`` when there is no such SA."""
