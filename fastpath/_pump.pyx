# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The border of the native engine: validates, starts its threads, and is out of the way.

:class:`NativePump` is :class:`fastpath.types.Pump`. Each thread enters C once, without the
GIL, and leaves it at the end; everything a packet meets stands in ``_outbound`` and ``_inbound``.
"""

import os
import threading

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastpath._aead import describe
from fastpath.types import RELAY_BURST_OCTETS, Offload, OffloadState
from fastpath._core cimport (
    MAX_LANES, Core, InboundEntry, Lane, OutboundEntry, Passed, core_clear_flow, core_clear_relay,
    core_counters, core_free, core_install_inbound, core_install_outbound, core_new,
    core_outbound_passed, core_remove_inbound, core_remove_outbound, core_set_flow, core_set_relay,
    inbound_enter_call, inbound_leave_call, outbound_enter_call, outbound_leave_call, passed_show,
)
from fastpath._drops cimport TUN_WRITE
from fastpath._endpoint cimport Endpoint, endpoint_parse
from fastpath._esp cimport SLACK_OCTETS
from fastpath._events cimport events_drain
from fastpath._inbound cimport InboundWorker, inbound_free, inbound_new, inbound_run
from fastpath._linux cimport (
    atomic_add, atomic_get, atomic_set, boottime, getsockopt, IPPROTO_UDP, pthread_self,
    pthread_setname_np, setsockopt, UDP_GRO, UDP_SEGMENT, write,
)
from fastpath._inner cimport IPV6_HEADER
from fastpath._outbound cimport (
    OutboundWorker, outbound_datagram, outbound_dummy, outbound_free, outbound_inner, outbound_new,
    outbound_packet, outbound_run,
)
from fastpath._relay cimport relay_set_limit
from fastpath._segment cimport VNET_OCTETS
from fastpath._sender cimport (
    GSO_NEVER, Sender, sender_finish, sender_free, sender_new,
)
from fastpath._source cimport Source, source_parse
from fastpath._table cimport table_get
from fastpath._turn cimport turn_begin

cdef enum:
    CALL_OCTETS = 2 * 65536  # room for one packet of a caller
    MIN_MTU = 1280  # RFC 8200 §5
    MAX_MTU = 65535
    DEFAULT_MTU = 1400

_SEGMENT = (Offload.UDP_SEGMENT4, Offload.UDP_SEGMENT6)
_GRO = (Offload.UDP_GRO4, Offload.UDP_GRO6)


cdef class NativePump:
    """:class:`fastpath.types.Pump` in C. Descriptors are non-blocking and stay the caller's.

    ``aead`` is one of :func:`fastpath._aead.backends`, or "auto" for the best. Raises
    :class:`ValueError` for a bad host id or an AEAD backend that is not there.

    ``vnet_hdr``: frames of TUN carry a 10-octet virtio header (IFF_VNET_HDR). Large ones are cut
    into packets of :meth:`set_mtu` octets, and packets are merged into large ones.
    Without ``offload`` the sockets send and receive packet by packet, as on old kernels.

    ``more``: further :class:`fastpath.types.Queue` of the same device and port, of which each gets
    two threads of its own.
    """

    engine = "native"
    cdef readonly str aead
    cdef str _backend
    cdef Core *core
    cdef Sender *caller  # of inject, send, send_dummy; under the outbound gate
    cdef InboundWorker *inbound[MAX_LANES]
    cdef OutboundWorker *outbound[MAX_LANES]
    cdef list _threads
    cdef bint _stopped
    cdef dict _sockets_help  # states of UDP's offloads, as found when the pump was made

    def __cinit__(
        self, int tun_fd, udp4_fd, udp6_fd, bytes host_id, bint vnet_hdr=False, *, str aead="auto",
        bint offload=True, more=(),
    ):
        cdef int number
        self.aead = describe(aead)
        self._backend = aead
        self._threads = []
        self.core = core_new(host_id, 1 + len(more))
        self.core.vnet_hdr = vnet_hdr
        self.core.uso = vnet_hdr
        self.core.mtu = DEFAULT_MTU
        for number, queue in enumerate([(tun_fd, udp4_fd, udp6_fd), *more]):
            self._set_up(number, queue, offload)
        self.caller = sender_new(&self.core.lanes[0], &self.core.lanes[0].sent, CALL_OCTETS)

    cdef _set_up(self, int number, queue, bint offload):
        """One lane. All sockets are of one kernel: what it says of the last is true of all."""
        cdef Lane *lane = &self.core.lanes[number]
        lane.tun, udp4, udp6 = queue
        lane.udp4 = -1 if udp4 is None else udp4
        lane.udp6 = -1 if udp6 is None else udp6
        self._sockets_help = {}
        for place, fd in enumerate((lane.udp4, lane.udp6)):
            gso = _state(fd, offload, _knows_gso)
            self._sockets_help[_SEGMENT[place]] = gso
            self._sockets_help[_GRO[place]] = _state(fd, offload, _set_gro)
            self.core.gso_again[place] = 0 if gso is OffloadState.ON else GSO_NEVER
        self.outbound[number] = outbound_new(lane)
        self.inbound[number] = inbound_new(lane, self.outbound[number])

    def __dealloc__(self):
        cdef int number
        for number in range(MAX_LANES):
            inbound_free(self.inbound[number])
            outbound_free(self.outbound[number])
        sender_free(self.caller)
        if self.core != NULL:
            core_free(self.core)

    # --- Life -----------------------------------------------------------------------------------

    def start(self):
        """Starts the threads. A pump is started once."""
        if self._threads or self._stopped:
            raise RuntimeError("a pump is started once")
        for number in range(self.core.count):
            self._begin(number)
        for thread in self._threads:
            thread.start()

    cdef _begin(self, int number):
        cdef Lane *lane = &self.core.lanes[number]
        turn_begin(&lane.turn, lane.tun, lane.udp4, lane.udp6, self.core.wake)
        for name, run in (("out", self._run_outbound), ("in", self._run_inbound)):
            self._threads.append(threading.Thread(
                target=run, args=(number,), name=f"autotunnel-{name}", daemon=True))

    def stop(self):
        """Ends the threads after their batch and joins them; a second call does nothing."""
        self._stopped = True
        atomic_set(&self.core.stopping, 1)
        os.eventfd_write(self.core.wake, 1)
        for thread in self._threads:
            thread.join()

    def _run_outbound(self, int number):
        with nogil:
            pthread_setname_np(pthread_self(), "autotunnel-out")
            outbound_run(self.outbound[number])

    def _run_inbound(self, int number):
        with nogil:
            pthread_setname_np(pthread_self(), "autotunnel-in")
            inbound_run(self.inbound[number])

    # --- Tables ---------------------------------------------------------------------------------

    def install_inbound(self, sa):
        """Opens what comes with ``sa.spi`` from now on."""
        core_install_inbound(self.core, sa, self._backend)

    def install_outbound(self, sa):
        """Makes ``sa.spi`` ready to be named in a flow."""
        core_install_outbound(self.core, sa, self._backend)

    def remove_inbound(self, uint32_t spi):
        """Forgets the SA and wipes its key; an SPI that is not there is fine."""
        with nogil:
            core_remove_inbound(self.core, spi)

    def remove_outbound(self, uint32_t spi):
        """Forgets the SA and wipes its key; an SPI that is not there is fine."""
        with nogil:
            core_remove_outbound(self.core, spi)

    def set_flow(self, bytes peer_id, uint32_t spi, endpoint, size_t mtu=MAX_MTU,
                 size_t largest=MAX_MTU, narrow=()):
        """As :meth:`fastpath.types.Pump.set_flow`; :class:`ValueError` for a bad endpoint."""
        core_set_flow(self.core, peer_id, spi, endpoint, mtu, largest, narrow)

    def clear_flow(self, bytes peer_id):
        """Inner packets to ``peer_id`` raise an acquire event from now on."""
        core_clear_flow(self.core, peer_id)

    def set_mtu(self, uint64_t octets):
        """Large frames are cut into inner packets of at most ``octets`` (1280..65535)."""
        if not MIN_MTU <= octets <= MAX_MTU:
            raise ValueError(f"MTU {octets} is not within {MIN_MTU}..{MAX_MTU}")
        atomic_set(&self.core.mtu, octets)

    def set_relay(self, bytes host_id, uint32_t spi, endpoint, bint forward=False):
        """As :meth:`fastpath.types.Pump.set_relay`; :class:`ValueError` for a bad endpoint."""
        core_set_relay(self.core, host_id, spi, endpoint, forward)

    def clear_relay(self, bytes host_id):
        """As :meth:`fastpath.types.Pump.clear_relay`."""
        core_clear_relay(self.core, host_id)

    def set_relay_limit(self, octets_per_second):
        """As :meth:`fastpath.types.Pump.set_relay_limit`."""
        if octets_per_second < 0:
            raise ValueError("a limit is 0 or more octets a second")
        relay_set_limit(
            self.core, octets_per_second, max(octets_per_second / 10, RELAY_BURST_OCTETS))

    # --- Packets of the control thread ----------------------------------------------------------

    def inject(self, bytes packet):
        """Sends an inner packet as if it had just come from the TUN device."""
        cdef const uint8_t *data = <const uint8_t *>packet
        cdef size_t octets = len(packet)
        cdef uint8_t *room = _writable(data, octets)
        with nogil:
            outbound_enter_call(self.core)
            self.caller.now = boottime()
            outbound_packet(self.caller, room, octets)
            sender_finish(self.caller, False)
            outbound_leave_call(self.core)
            free(room)

    def deliver(self, bytes packet):
        """Writes an inner packet to the TUN device."""
        if self.core.vnet_hdr:
            packet = bytes(VNET_OCTETS) + packet
        cdef const uint8_t *data = <const uint8_t *>packet
        cdef size_t octets = len(packet)
        with nogil:
            if write(self.core.lanes[0].tun, data, octets) < 0:
                atomic_add(&self.core.io_drops[TUN_WRITE], 1)

    def send(self, bytes datagram, endpoint, source=None):
        """As :meth:`fastpath.types.Pump.send`; :class:`ValueError` for a bad endpoint."""
        cdef const uint8_t *data = <const uint8_t *>datagram
        cdef size_t octets = len(datagram)
        cdef Endpoint target
        cdef Source chosen
        cdef const Source *leaving = NULL
        endpoint_parse(endpoint, &target)
        if source is not None:
            source_parse(source, target.family, &chosen)
            leaving = &chosen
        if octets > CALL_OCTETS:
            raise ValueError(f"{octets} octets are more than UDP can carry")
        with nogil:
            outbound_enter_call(self.core)
            self.caller.now = boottime()
            outbound_datagram(self.caller, &target, leaving, data, octets)
            sender_finish(self.caller, False)
            outbound_leave_call(self.core)

    def send_dummy(self, uint32_t spi, endpoint, bytes body=b"", bint whole=False):
        """Sends one ESP dummy packet around ``body`` on outbound ``spi``."""
        cdef const uint8_t *data = <const uint8_t *>body
        cdef size_t octets = len(body)
        cdef uint8_t *room
        cdef Endpoint target
        endpoint_parse(endpoint, &target)
        if octets > MAX_MTU:
            raise ValueError(f"{octets} octets are more than UDP can carry")
        room = _writable(data, octets)
        with nogil:
            outbound_enter_call(self.core)
            self.caller.now = boottime()
            outbound_dummy(self.caller, spi, &target, room, octets, whole)
            sender_finish(self.caller, False)
            outbound_leave_call(self.core)
            free(room)

    def send_inner(self, uint32_t spi, endpoint, bytes packet, source=None):
        """As :meth:`fastpath.types.Pump.send_inner`; :class:`ValueError` for a bad endpoint."""
        cdef const uint8_t *data = <const uint8_t *>packet
        cdef size_t octets = len(packet)
        cdef uint8_t *room
        cdef Endpoint target
        cdef Source chosen
        cdef const Source *leaving = NULL
        endpoint_parse(endpoint, &target)
        if source is not None:
            source_parse(source, target.family, &chosen)
            leaving = &chosen
        if octets > MAX_MTU + IPV6_HEADER:
            raise ValueError(f"{octets} octets are no packet")
        room = _writable(data, octets)
        with nogil:
            outbound_enter_call(self.core)
            self.caller.now = boottime()
            outbound_inner(self.caller, spi, &target, leaving, room, octets)
            sender_finish(self.caller, False)
            outbound_leave_call(self.core)
            free(room)

    def offloads(self):
        """As :meth:`fastpath.types.Pump.offloads`."""
        uso = OffloadState.ON if atomic_get(&self.core.uso) else OffloadState.UNKNOWN
        states = {Offload.TUN_USO: uso if self.core.vnet_hdr else OffloadState.OFF}
        states |= self._sockets_help
        for place, name in enumerate(_SEGMENT):
            if atomic_get(&self.core.gso_again[place]) not in (0, GSO_NEVER):
                states[name] = OffloadState.REFUSED
        return states

    # --- What the control thread reads ----------------------------------------------------------

    def event_fd(self):
        """Readable when :meth:`drain` has something."""
        return self.core.events.fd

    def drain(self):
        """Takes all queued events, oldest first. Calls must not overlap."""
        return events_drain(&self.core.events)

    def counters(self):
        """Totals and drops by reason."""
        return core_counters(self.core)

    def inbound_counters(self, uint32_t spi):
        """What inbound ``spi`` has passed; ``None`` when there is no such SA."""
        cdef InboundEntry *entry
        cdef Passed passed
        with nogil:
            inbound_enter_call(self.core)
            entry = <InboundEntry *>table_get(&self.core.inbound, 0, spi)
            if entry != NULL:
                passed = entry.passed
            inbound_leave_call(self.core)
        return None if entry == NULL else passed_show(&passed)

    def outbound_counters(self, uint32_t spi):
        """What outbound ``spi`` has sealed; ``None`` when there is no such SA."""
        cdef OutboundEntry *entry
        cdef Passed passed
        with nogil:
            outbound_enter_call(self.core)
            entry = <OutboundEntry *>table_get(&self.core.outbound, 0, spi)
            if entry != NULL:
                core_outbound_passed(entry, &passed)
            outbound_leave_call(self.core)
        return None if entry == NULL else passed_show(&passed)


cdef uint8_t *_writable(const uint8_t *data, size_t octets) except NULL:
    """A copy with the room behind it that esp_seal wants; the caller frees it."""
    cdef uint8_t *room = <uint8_t *>malloc(octets + SLACK_OCTETS)
    if room == NULL:
        raise MemoryError
    memcpy(room, data, octets)
    return room


cdef object _state(int fd, bint offload, bint (*has)(int)):
    """Of one offload of one socket; ``has`` says whether the kernel has it."""
    if fd < 0:
        return OffloadState.ABSENT
    if not offload:
        return OffloadState.OFF
    return OffloadState.ON if has(fd) else OffloadState.UNKNOWN


cdef bint _knows_gso(int fd) noexcept:
    """Whether the kernel knows UDP_SEGMENT (since 4.18)."""
    cdef int value = 0
    cdef uint32_t octets = sizeof(value)
    return getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &value, &octets) == 0


cdef bint _set_gro(int fd) noexcept:
    """Switches UDP_GRO on (since 5.0); whether the kernel knows it."""
    cdef int on = 1
    return setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0
