"""The pump where the native one cannot run: one thread over the reference data path.

Everything that is decided stands in :class:`fastpath.reference.datapath.Datapath`; here are
the descriptors only. One lock guards the data path: the thread holds it for a batch, the
control thread for a call.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import cryptography
from cryptography.hazmat.backends.openssl import backend

from fastpath.reference.classify import is_first_word
from fastpath.reference.datapath import Datapath, Output, SendDatagram, WritePacket
from fastpath.types import (
    EVENT_QUEUE_OCTETS,
    EVENT_QUEUE_PACKETS,
    EVENT_QUEUE_STRANGERS,
    NO_LIMIT,
    AcquireEvent,
    ControlEvent,
    Drop,
    DummyEvent,
    Endpoint,
    Event,
    MobilityEvent,
    Offload,
    OffloadState,
    Queue,
    SaCounters,
    SaParams,
    Source,
    TooBigEvent,
    Traffic,
)
from tunnel.io import fragments, sources

BATCH = 64  # packets of one descriptor before the others get their turn
FRAME_OCTETS = 65_536
VNET_HEADER = bytes(10)  # struct virtio_net_hdr: no offload asked for, none done

_SocketAddress: TypeAlias = tuple[Any, ...]


def boottime() -> float:
    """Seconds on a clock that goes on during suspend, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class EventQueue:
    """Events towards the control thread, bounded by count and by octets, with a descriptor."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._octets = self._strangers = 0
        self._lock = threading.Lock()
        self._signal = Signal()

    def put(self, event: Event) -> bool:
        """Queues ``event``; false when the queue is full and it was dropped."""
        octets = _octets_of(event)
        stranger = isinstance(event, ControlEvent) and is_first_word(event.data)
        with self._lock:
            full = len(self._events) >= EVENT_QUEUE_PACKETS
            if full or self._octets + octets > EVENT_QUEUE_OCTETS:
                return False
            crowd = self._strangers >= EVENT_QUEUE_STRANGERS
            if stranger and (crowd or self._octets > EVENT_QUEUE_OCTETS // 2):
                return False
            self._events.append(event)
            self._octets += octets
            self._strangers += stranger
        self._signal.set()
        return True

    def drain(self) -> list[Event]:
        """Takes everything, oldest first."""
        with self._lock:
            self._signal.clear()
            events, self._octets, self._strangers = list(self._events), 0, 0
            self._events.clear()
        return events

    def fileno(self) -> int:
        """Readable while something is queued."""
        return self._signal.fileno()

    def close(self) -> None:
        """Closes the descriptor."""
        self._signal.close()


class Signal:
    """A flag with a descriptor: an eventfd on Linux, a pair of sockets elsewhere."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            pair = socket.socketpair()
            for end in pair:
                end.setblocking(False)
            self._read, self._write = (end.detach() for end in pair)

    def set(self) -> None:
        """Makes the descriptor readable."""
        try:
            os.write(self._write, (1).to_bytes(8, "little"))  # eventfd wants a 64-bit addend
        except BlockingIOError:
            return  # full means readable, which is what was wanted

    def clear(self) -> None:
        """Makes it unreadable again."""
        try:
            while os.read(self._read, 4096) and self._read != self._write:
                pass
        except BlockingIOError:
            return

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._read

    def close(self) -> None:
        """Closes both ends."""
        for fd in {self._read, self._write}:
            os.close(fd)


class PortablePump:
    """:class:`fastpath.types.Pump` in Python. Descriptors are non-blocking and the caller's.

    ``vnet_hdr`` says that frames of the TUN device carry a 10-octet virtio header; no offload
    is asked for, so it is skipped on reading and zero on writing.
    """

    engine = "reference"
    aead = f"cryptography {cryptography.__version__} ({backend.openssl_version_text()})"

    def __init__(
        self,
        tun_fd: int,
        udp4_fd: int | None,
        udp6_fd: int | None,
        host_id: bytes,
        vnet_hdr: bool = False,
        *,
        more: Sequence[Queue] = (),
    ) -> None:
        self._datapath = Datapath(host_id)
        self._tun = tun_fd
        self._header = VNET_HEADER if vnet_hdr else b""
        # Duplicates share the caller's non-blocking flag; closing them leaves his open.
        self._udp = {
            family: socket.socket(family, socket.SOCK_DGRAM, fileno=os.dup(fd))
            for family, fd in ((socket.AF_INET, udp4_fd), (socket.AF_INET6, udp6_fd))
            if fd is not None
        }
        self._more_tuns = tuple(queue.tun_fd for queue in more)
        self._more_udp = tuple(
            socket.socket(family, socket.SOCK_DGRAM, fileno=os.dup(fd))
            for queue in more
            for family, fd in ((socket.AF_INET, queue.udp4_fd), (socket.AF_INET6, queue.udp6_fd))
            if fd is not None
        )
        self._lock = threading.Lock()
        self._events = EventQueue()
        self._wake = Signal()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # --- Life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread."""
        if self._thread is not None:
            raise RuntimeError("a pump is started once")
        self._thread = threading.Thread(target=self._run, name="autotunnel-pump", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its batch and joins it; a second call does nothing."""
        if self._stopping:
            return
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        for udp in (*self._udp.values(), *self._more_udp):
            udp.close()
        self._wake.close()

    def __del__(self) -> None:
        # The event descriptor outlives stop(): an event loop may still have it registered.
        if hasattr(self, "_events"):
            self._events.close()

    # --- Tables -------------------------------------------------------------------------------

    def install_inbound(self, sa: SaParams) -> None:
        """Opens what comes with ``sa.spi`` from now on."""
        with self._lock:
            self._datapath.install_inbound(sa)

    def install_outbound(self, sa: SaParams) -> None:
        """Makes ``sa.spi`` ready to be named in a flow."""
        with self._lock:
            self._datapath.install_outbound(sa)

    def remove_inbound(self, spi: int) -> None:
        """Forgets the SA; an SPI that is not there is fine."""
        with self._lock:
            self._datapath.remove_inbound(spi)

    def remove_outbound(self, spi: int) -> None:
        """Forgets the SA; an SPI that is not there is fine."""
        with self._lock:
            self._datapath.remove_outbound(spi)

    def set_flow(
        self,
        peer_id: bytes,
        spi: int,
        endpoint: Endpoint,
        mtu: int = NO_LIMIT,
        largest: int = NO_LIMIT,
        narrow: Sequence[tuple[Traffic, int]] = (),
    ) -> None:
        """As :meth:`fastpath.types.Pump.set_flow`; :class:`ValueError` for a bad endpoint."""
        _socket_address(endpoint)
        with self._lock:
            self._datapath.set_flow(peer_id, spi, endpoint, mtu, largest, narrow)

    def clear_flow(self, peer_id: bytes) -> None:
        """Inner packets to ``peer_id`` raise an acquire event from now on."""
        with self._lock:
            self._datapath.clear_flow(peer_id)

    def set_relay(
        self, host_id: bytes, spi: int, endpoint: Endpoint, forward: bool = False
    ) -> None:
        """As :meth:`fastpath.types.Pump.set_relay`; :class:`ValueError` for a bad endpoint."""
        _socket_address(endpoint)
        with self._lock:
            self._datapath.set_relay(host_id, spi, endpoint, forward)

    def clear_relay(self, host_id: bytes) -> None:
        """As :meth:`fastpath.types.Pump.clear_relay`."""
        with self._lock:
            self._datapath.clear_relay(host_id)

    def set_relay_limit(self, octets_per_second: int) -> None:
        """As :meth:`fastpath.types.Pump.set_relay_limit`."""
        with self._lock:
            self._datapath.set_relay_limit(octets_per_second)

    # --- Packets of the control thread --------------------------------------------------------

    def inject(self, packet: bytes) -> None:
        """Sends an inner packet as if it had just come from the TUN device."""
        with self._lock:
            self._carry_out(self._datapath.outbound(packet, boottime()))

    def deliver(self, packet: bytes) -> None:
        """Writes an inner packet to the TUN device."""
        with self._lock:
            self._write(packet)

    def send(self, datagram: bytes, endpoint: Endpoint, source: Source | None = None) -> None:
        """As :meth:`fastpath.types.Pump.send`; of a source as :meth:`send_inner`."""
        if source is not None:
            sources.check(source, _socket_address(endpoint)[0])
        with self._lock:
            self._carry_out(self._datapath.send(datagram, endpoint, boottime(), source))

    def send_inner(
        self, spi: int, endpoint: Endpoint, packet: bytes, source: Source | None = None
    ) -> None:
        """As :meth:`fastpath.types.Pump.send_inner`. Where the system is not Linux, nothing leaves
        from a source, and that is counted: there, nobody tells of other ways, either."""
        family, _ = _socket_address(endpoint)
        if source is not None:
            sources.check(source, family)
        with self._lock:
            self._carry_out(self._datapath.send_inner(spi, endpoint, packet, boottime(), source))

    def send_dummy(
        self, spi: int, endpoint: Endpoint, body: bytes = b"", whole: bool = False
    ) -> None:
        """Sends one ESP dummy packet around ``body`` on outbound ``spi``."""
        with self._lock:
            self._carry_out(self._datapath.dummy(spi, endpoint, body, whole, boottime()))

    # --- What the control thread reads --------------------------------------------------------

    def offloads(self) -> dict[Offload, OffloadState]:
        """None of them: packets are taken one by one."""
        present = {
            socket.AF_INET: (Offload.UDP_SEGMENT4, Offload.UDP_GRO4),
            socket.AF_INET6: (Offload.UDP_SEGMENT6, Offload.UDP_GRO6),
        }
        states = {Offload.TUN_USO: OffloadState.OFF}
        for family, names in present.items():
            state = OffloadState.OFF if family in self._udp else OffloadState.ABSENT
            states |= dict.fromkeys(names, state)
        return states

    def event_fd(self) -> int:
        """Readable when :meth:`drain` has something."""
        return self._events.fileno()

    def drain(self) -> list[Event]:
        """Takes all queued events, oldest first."""
        return self._events.drain()

    def counters(self) -> dict[str, int]:
        """Totals and drops by reason."""
        with self._lock:
            return self._datapath.counters()

    def inbound_counters(self, spi: int) -> SaCounters | None:
        """What inbound ``spi`` has passed; ``None`` when there is no such SA."""
        with self._lock:
            return self._datapath.inbound_counters(spi)

    def outbound_counters(self, spi: int) -> SaCounters | None:
        """What outbound ``spi`` has sealed; ``None`` when there is no such SA."""
        with self._lock:
            return self._datapath.outbound_counters(spi)

    # --- The thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake.fileno(), selectors.EVENT_READ, None)
            for tun in (self._tun, *self._more_tuns):
                selector.register(tun, selectors.EVENT_READ, partial(self._read_tun, tun))
            for udp in (*self._udp.values(), *self._more_udp):
                selector.register(udp, selectors.EVENT_READ, partial(self._read_udp, udp))
            while not self._stopping:
                for key, _ in selector.select():
                    if key.data is not None:
                        self._batch(key.data, partial(selector.unregister, key.fileobj))

    def _batch(self, read: Callable[[], list[Output]], forget: Callable[[], object]) -> None:
        with self._lock:
            try:
                for _ in range(BATCH):
                    self._carry_out(read())
            except BlockingIOError:
                return
            except ConnectionError:
                return  # an ICMP error of an earlier send; the next read goes on
            except OSError:
                forget()  # the device is gone; the control plane sees that by itself

    def _read_tun(self, tun: int) -> list[Output]:
        frame = os.read(tun, FRAME_OCTETS)
        if not frame:
            raise OSError(errno.EBADF, "the TUN device is closed")
        return self._datapath.outbound(frame[len(self._header) :], boottime())

    def _read_udp(self, udp: socket.socket) -> list[Output]:
        data, address = udp.recvfrom(FRAME_OCTETS)
        return self._datapath.inbound(data, _endpoint(address), boottime())

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, SendDatagram):
                self._send(output.data, output.endpoint, output.whole, output.source)
            elif isinstance(output, WritePacket):
                self._write(output.packet)
            elif not self._events.put(output):
                self._datapath.count_drop(Drop.QUEUE_FULL)

    def _write(self, packet: bytes) -> None:
        try:
            os.write(self._tun, self._header + packet)
        except OSError:
            self._datapath.count_drop(Drop.TUN_WRITE)

    def _send(
        self,
        datagram: bytes,
        endpoint: Endpoint,
        whole: bool = False,
        source: Source | None = None,
    ) -> None:
        try:
            family, address = _socket_address(endpoint)
            if source is not None:
                sources.send_from(self._udp[family], source, datagram, address)
            elif whole:
                fragments.send_whole(self._udp[family], datagram, address)
            else:
                self._udp[family].sendto(datagram, address)
        except OSError as error:
            too_big = error.errno == errno.EMSGSIZE
            self._datapath.count_drop(Drop.TOO_BIG if too_big else Drop.UDP_SEND)
        except (KeyError, ValueError):  # no socket of that family, or no address at all
            self._datapath.count_drop(Drop.UDP_SEND)


def _octets_of(event: Event) -> int:
    match event:
        case AcquireEvent(octets) | ControlEvent(octets) | TooBigEvent(octets):
            return len(octets)
        case MobilityEvent():
            return len(event.message)
        case DummyEvent():
            return len(event.head)
        case _:
            return 0


def _socket_address(endpoint: Endpoint) -> tuple[socket.AddressFamily, _SocketAddress]:
    """What ``sendto`` wants; parsed here, so that no text can ever become a name lookup."""
    host, port = endpoint
    ip = ipaddress.ip_address(host)
    if not 0 < port <= 0xFFFF:
        raise ValueError(f"port {port} is not within 1..65535")
    if isinstance(ip, ipaddress.IPv4Address):
        return socket.AF_INET, (host, port)
    scope = ip.scope_id
    if not scope:
        return socket.AF_INET6, (host, port)
    index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    return socket.AF_INET6, (host.split("%")[0], port, 0, index)


def _endpoint(address: _SocketAddress) -> Endpoint:
    host, port = address[0].split("%")[0], address[1]
    scope = address[3] if len(address) > 3 else 0
    return (f"{host}%{scope}" if scope else host), port
