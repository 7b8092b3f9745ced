"""The driver: carries out the node's commands, and tells the node what happened.

Everything of the control plane runs on one asyncio loop; packets do not pass here (the pump's
threads move them) except those that have no SA yet. Time is CLOCK_BOOTTIME, which goes on while
the machine sleeps; asyncio's does not, so no timer is set further ahead than a few seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import structlog

from fastpath import types as pump_types
from fastpath.reference.classify import is_first_word
from fastpath.types import Endpoint, Pump, SaCounters
from tunnel import commands as do
from tunnel.border import call_of, change
from tunnel.io.device import Device, DeviceError
from tunnel.io.sockets import UdpPair
from tunnel.io.strangers import in_turn
from tunnel.io.translation import Translation
from tunnel.node import Node

if TYPE_CHECKING:
    from tunnel.recording import Recorder

MARKER = bytes(4)  # RFC 3948 §2.2
KEEPALIVE = b"\xff"  # RFC 3948 §2.3
_MAX_SLEEP = 3.0  # seconds: so late, at most, a wake-up from suspend is noticed
_SLEPT = 5.0  # seconds of suspend after which NATs, peers and networks may not be what they were
_REST = 10  # times as long as it took: the node looks at every peer for its next timer
_MAX_REST = 0.5  # seconds
_FRAMINGS = 4096  # remote endpoints whose way of framing is remembered
_IKE_OCTETS = 65535


def boottime() -> float:
    """Seconds on the suspend-aware clock, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class _Framing:
    """How IKE messages to one remote endpoint go: as its own last one came."""

    marker: bool
    pair: UdpPair | None  # the extra IKE socket, or ``None`` for the pump's


class Driver:
    """Runs ``node`` over a pump, a device and a zone transport; belongs to one running loop.

    ``answer`` gets the replies to requests (``Reached``, ``NotReached``, ``Found``, ``Pong``) and
    ``Finished``; ``send_zone`` a DNS message for the rendezvous, ``drop_zone`` the pause
    before the next connection to it. ``recorder`` is told of every call into the node,
    ``resumed`` is called after the machine has slept.
    """

    def __init__(
        self,
        node: Node,
        pump: Pump,
        device: Device,
        *,
        ike_pair: UdpPair | None,
        send_zone: Callable[[bytes], None],
        drop_zone: Callable[[float], None] = lambda _: None,
        answer: Callable[[do.Command], None],
        recorder: Recorder | None = None,
        resumed: Callable[[], None] = lambda: None,
    ) -> None:
        self._resumed = resumed
        self._node = node
        self._pump = pump
        self._device = device
        self._ike_pair = ike_pair
        self._send_zone, self._drop_zone = send_zone, drop_zone
        self._answer = answer
        self._recorder = recorder
        self.translation = Translation()  # of where datagrams go to and come from
        self._log = structlog.get_logger("autotunnel")
        self._loop = asyncio.get_running_loop()
        self._framings: OrderedDict[Endpoint, _Framing] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._activity_at = float("inf")  # when the counters are to be read
        self._suspended = boottime() - time.monotonic()  # seconds so far
        self._due: float | None = None  # the node's next timer
        self._stale = True  # the node was told something since
        self._rest_until = 0.0  # until then it is not asked for its next timer again
        self._running = False
        self.unheard = 0  # strangers' first messages that there was no time for

    # --- Life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the pump's threads and the node."""
        self._running = True
        self._loop.add_reader(self._pump.event_fd(), self._drain)
        for one in self._ike_sockets():
            self._loop.add_reader(one.fileno(), self._read_ike, one)
        self._pump.start()
        self.tell(self._node.start)

    def stop(self) -> None:
        """Stops the pump's threads; nothing is read or sent any more. Idempotent."""
        if not self._running:
            return
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._pump.event_fd())
        for one in self._ike_sockets():
            self._loop.remove_reader(one.fileno())
        self._pump.stop()

    # --- Towards the node -------------------------------------------------------------------

    def tell(self, method: Callable[..., list[do.Command]], *arguments: Any) -> None:
        """Calls a method of the node with ``arguments`` and the time, and does what it says."""
        if self._running:
            self._pass_on(method, *arguments)
            self._set_timer()

    def _pass_on(self, method: Callable[..., list[do.Command]], *arguments: Any) -> None:
        """As :meth:`tell`, for one of many: the caller sets the timer when all are told."""
        if self._running:
            self._stale = True
            now, unix = boottime(), int(time.time())
            commands = method(*arguments, now, unix)
            if self._recorder is not None:
                self._recorder.called(method.__name__, arguments, now, unix, commands)
            self._carry_out(commands)

    def now(self) -> float:
        """The node's time."""
        return boottime()

    def read_counters(self) -> None:
        """Tells the node what its SAs have passed so far."""
        spis_in, spis_out = self._node.spis()
        inbound = _present(spis_in, self._pump.inbound_counters)
        outbound = _present(spis_out, self._pump.outbound_counters)
        self._pass_on(self._node.activity, inbound, outbound)
        self._activity_at = boottime() + self._node.look_after
        if self._running:
            self._set_timer()

    def _set_timer(self) -> None:
        """Wakes us at the node's next timer; or, if to find it took long just now, when it may be
        looked for again."""
        if self._timer is not None:
            self._timer.cancel()
        now = boottime()
        self._look(now)
        at = self._rest_until if self._stale else self._due
        wait = _MAX_SLEEP if at is None else min(max(at - now, 0.0), _MAX_SLEEP)
        self._activity_at = min(self._activity_at, now + self._node.look_after)
        wait = min(wait, max(self._activity_at - now, 0.0))
        self._timer = self._loop.call_later(wait, self._tick)

    def _look(self, now: float) -> None:
        """Finds the node's next timer anew if it may have changed, and if that is not too dear."""
        if not self._stale or now < self._rest_until:
            return
        self._due, self._stale = self._node.next_timer(), False
        ended = boottime()
        self._rest_until = ended + min((ended - now) * _REST, _MAX_REST)

    def _notice_resume(self, now: float) -> None:
        suspended = now - time.monotonic()
        if suspended > self._suspended + _SLEPT:
            self._suspended = suspended
            self._resumed()

    def _tick(self) -> None:
        now = boottime()
        self._notice_resume(now)
        self._look(now)
        if not self._stale and self._due is not None and self._due <= now:
            self.tell(self._node.advance)
        if self._activity_at <= now:
            self.read_counters()
        else:
            self._set_timer()

    def _drain(self) -> None:
        """Known peers and our own applications first; then strangers, some at a time."""
        strangers = []
        for event in map(self._translated, self._pump.drain()):
            if _is_a_strangers(event):
                strangers.append(event)
            else:
                self._happened(event)
        heard = in_turn(strangers)
        self.unheard += len(strangers) - len(heard)
        for event in heard:
            self._first_word(event.data, event.source, _Framing(event.marker, None))
        if self._running:
            self._set_timer()

    def _translated(self, event: pump_types.Event) -> pump_types.Event:
        """Where it came from, as the node knows it."""
        match event:
            case (
                pump_types.ControlEvent(source=source)
                | pump_types.NewSourceEvent(source=source)
                | pump_types.UnknownSpiEvent(source=source)
                | pump_types.MobilityEvent(source=source)
            ) if self.translation.prefix is not None:
                return replace(event, source=self.translation.into(source))
            case _:
                return event

    def _first_word(self, data: bytes, source: Endpoint, framing: _Framing) -> None:
        """A stranger's. How it is framed is kept for the answer only: in a flood, those that have
        never proven to be anywhere would drive out what we know of peers."""
        before = self._framings.get(source)
        self._remember(source, framing)
        self._pass_on(self._node.datagram, data, source)
        self._framings.pop(source, None)
        if before is not None:
            self._framings[source] = before

    def _happened(self, event: pump_types.Event) -> None:
        if isinstance(event, pump_types.ControlEvent) and not event.relay:
            self._remember(event.source, _Framing(event.marker, None))
        method, arguments = call_of(self._node, event)
        self._pass_on(method, *arguments)

    def _ike_sockets(self) -> list[Any]:
        return [] if self._ike_pair is None else list(self._ike_pair.sockets.values())

    def _read_ike(self, one: Any) -> None:
        """IKE without marker on the extra port (RFC 7296 §2: port 500)."""
        try:
            data, address = one.recvfrom(_IKE_OCTETS)
        except OSError:
            return
        source, framing = (address[0], address[1]), _Framing(False, self._ike_pair)
        if is_first_word(data):
            self._first_word(data, source, framing)
            self._set_timer()
        else:
            self._remember(source, framing)
            self.tell(self._node.datagram, data, source)

    def _remember(self, source: Endpoint, framing: _Framing) -> None:
        """Bounded, since anybody can send: the oldest is forgotten and gets the usual framing."""
        self._framings.pop(source, None)
        if framing.marker:
            return  # the usual one
        self._framings[source] = framing
        if len(self._framings) > _FRAMINGS:
            self._framings.popitem(last=False)

    # --- From the node ----------------------------------------------------------------------

    def _carry_out(self, commands: list[do.Command]) -> None:
        for command in commands:
            try:
                if not self._table(command) and not self._packet(command):
                    self._rest(command)
            except DeviceError as problem:
                self._log.warning(str(problem))
            except ValueError as problem:  # an endpoint of the zone or of a peer that is none
                self._log.warning("a command could not be carried out", reason=str(problem))

    def _table(self, command: do.Command) -> bool:
        match command:
            case do.AddRoute(host_id):
                self._device.add_route(host_id)
            case do.RemoveRoute(host_id):
                self._device.remove_route(host_id)
            case _:
                return change(self._pump, command, self._removed, self.translation.out)
        return True

    def _removed(self, spi: int, inbound: bool, counters: SaCounters | None) -> None:
        self._node.removed(spi, inbound, counters)
        if self._recorder is not None:
            self._recorder.called("removed", (spi, inbound, counters), 0.0, 0, [])

    def _packet(self, command: do.Command) -> bool:
        pump = self._pump
        match command:
            case do.SendIke(data, remote, None):
                self._send_ike(data, remote)
            case do.SendIke(data, remote, source):
                pump.send(MARKER + data, self.translation.out(remote), source)
            case do.SendKeepalive(remote):
                pump.send(KEEPALIVE, self.translation.out(remote))
            case do.SendDummy(spi, endpoint, body, whole):
                pump.send_dummy(spi, self.translation.out(endpoint), body, whole)
            case do.SendInner(spi, endpoint, packet, source):
                pump.send_inner(spi, self.translation.out(endpoint), packet, source)
            case do.Inject(packet):
                pump.inject(packet)
            case do.Deliver(packet):
                pump.deliver(packet)
            case do.SendZone(wire):
                self._send_zone(wire)
            case do.DropZone(pause):
                self._drop_zone(pause)
            case _:
                return False
        return True

    def _send_ike(self, data: bytes, remote: Endpoint) -> None:
        framing, remote = self._framings.get(remote), self.translation.out(remote)
        if framing is None:
            self._pump.send(MARKER + data, remote)
        elif framing.pair is None:
            self._pump.send(data, remote)
        else:
            framing.pair.send(data, remote)

    def _rest(self, command: do.Command) -> None:
        if isinstance(command, do.Log):
            # Keys of fields are chosen by us; only their values may come from the network.
            getattr(self._log, command.level)(command.text, **dict(command.fields))
        else:
            self._answer(command)


def _is_a_strangers(event: pump_types.Event) -> TypeGuard[pump_types.ControlEvent]:
    """Whether anybody can have said it: not what comes nested, out of an SA of the account."""
    if not isinstance(event, pump_types.ControlEvent) or event.relay:
        return False
    return is_first_word(event.data)


def _present(
    spis: tuple[int, ...], read: Callable[[int], SaCounters | None]
) -> dict[int, SaCounters]:
    return {spi: counters for spi in spis if (counters := read(spi)) is not None}
