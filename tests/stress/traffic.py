"""Two pumps over real UDP, full traffic both ways, and a control thread that never rests.

::

    sender ──> TUN stand-in ─> pump ══ UDP on loopback ══ pump ─> TUN stand-in ──> receiver
    receiver <── TUN stand-in <─ pump ══ UDP on loopback ══ pump <─ TUN stand-in <── sender
                                  ^ control thread: rekeys, ^
                                    other peers' SAs and flows, counters

Every packet says its number, and its other octets follow from that, so that a packet that is lost,
doubled, overtaken or changed is seen. With several queues each has a flow of its own (every so many
numbers), and in one direction each comes from a port of its own, so that all queues receive on one
SA. ``python -m tests.stress.traffic`` runs it by itself (under ThreadSanitizer:
``tests.stress.tsan``).
"""

from __future__ import annotations

import argparse
import contextlib
import random
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fastpath.types import Endpoint, Pump, Queue, SaParams, Suite
from tests.fastpath.support import OUR_ID, PEER_ID, ipv6, key_of, native_module
from tests.fastpath.test_pump_conformance import Tuns, share, udp

WINDOW = 512  # packets on their way at once, so that no queue overflows
BUFFER = 8 * 2**20  # octets of each socket
PATIENCE = 60.0  # seconds until the last packets must be accounted for
BRUTAL = {"no_flow", "unknown_spi", "not_relayed"}  # what rough changes lose packets to
REKEYS, PACKETS = 12, 1000  # a run is worth something from here on, however busy the machine
GLIMPSE = 0.005  # seconds for a packet to find no flow; on a busy machine none may come
SO_RCVBUFFORCE = 33
SO_MEMINFO, DROPS = 55, 8  # Linux: statistics of a socket, and where its dropped packets stand
OTHERS = 512  # SPIs of peers that come and go meanwhile
POOL = random.Random(1).randbytes(1 << 16)
NUMBER = struct.Struct(">Q")


def packet(source: bytes, target: bytes, number: int) -> bytes:
    """The inner packet of this number: of any size, its content known."""
    start = number * 7919 % (len(POOL) - 1500)
    body = NUMBER.pack(number) + POOL[start : start + number * 131 % 1300]
    return ipv6(source, target, body)


class Side:
    """One host: its pump, its ends of UDP, and what its applications sent and got.

    ``shared``: its queues have one port, as those of a real host.
    """

    def __init__(
        self, make: Callable[..., Pump], ours: bytes, theirs: bytes, queues: int, *, shared: bool
    ) -> None:
        self.ours, self.theirs, self.queues = ours, theirs, queues
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(queues)]
        self.near, self.far = [near for near, _ in pairs], [far for _, far in pairs]
        self.udp = [udp()]
        for _ in range(queues - 1):
            self.udp.append(share(self.udp[0]) if shared else udp())
        for one in (*self.near, *self.far, *self.udp):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                one.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            with contextlib.suppress(PermissionError):  # root may have more than the limit
                one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            one.setblocking(False)
        for far in self.far:
            far.settimeout(0.05)
        self.tun = Tuns(self.far)
        first, *more = (
            Queue(near.fileno(), one.fileno(), None)
            for near, one in zip(self.near, self.udp, strict=True)
        )
        self.pump = make(*first, ours, more=more)
        self.sent = self.received = 0
        self.next = [0] * queues  # the number that comes next in each flow if nothing was lost
        self.wrong: list[str] = []

    @property
    def endpoint(self) -> Endpoint:
        """Where this host is reached."""
        host, port = self.udp[0].getsockname()
        return host, port

    def send(self) -> None:
        """The next packet, on the queue of its flow. Raises TimeoutError when that one is full."""
        self.far[self.sent % self.queues].send(packet(self.ours, self.theirs, self.sent))
        self.sent += 1

    def take(self, data: bytes) -> None:
        """One packet came out of the tunnel."""
        number = NUMBER.unpack_from(data, 40)[0] if len(data) >= 48 else -1
        if data != packet(self.theirs, self.ours, number):
            self.wrong.append(f"a packet that nobody sent, of {len(data)} octets")
            return
        flow = number % self.queues
        if number < self.next[flow]:
            self.wrong.append(f"number {number} came when {self.next[flow]} was due")
        self.next[flow] = max(self.next[flow], number + 1)
        self.received += 1

    def kernel_drops(self) -> int:
        """Datagrams that found no room in the socket."""
        infos = [one.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36) for one in self.udp]
        return sum(int(struct.unpack("9I", info)[DROPS]) for info in infos)

    def close(self) -> None:
        self.pump.stop()
        for one in (*self.near, *self.udp):
            one.close()
        self.tun.close()


@dataclass
class Result:
    """What became of the packets; ``drops`` are those of both pumps by name."""

    sent: int = 0
    received: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """Packets that came nowhere and that nobody counted."""
        return self.sent - self.received - self.drops.total()


class Stress:
    """The whole rig. ``rough``: SAs and flows in use are taken away and replaced, too."""

    def __init__(
        self, make: Callable[..., Pump], *, rough: bool, seed: int, queues: int = 1
    ) -> None:
        self._dice = random.Random(seed)
        self._rough = rough
        self._sides = (
            Side(make, OUR_ID, PEER_ID, queues, shared=True),
            Side(make, PEER_ID, OUR_ID, queues, shared=False),
        )
        self._spi = 0x1000
        self._suites = list(Suite)
        self._sending: dict[Side, SaParams] = {}
        self._retired: list[tuple[Side, Side, int]] = []
        self._changes: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._stop_sending = self._stop_receiving = False

    def run(self, seconds: float) -> Result:
        """Traffic and changes for so long, then until every packet is accounted for.

        A machine that is too busy to do enough in that time gets ``PATIENCE`` more.
        """
        self._begin()
        senders = [threading.Thread(target=self._send, args=pair) for pair in self._pairs()]
        receivers = [threading.Thread(target=self._receive, args=(s,)) for s in self._sides]
        for thread in (*senders, *receivers):
            thread.start()
        try:
            begun = time.monotonic()
            while not self._done(time.monotonic() - begun, seconds):
                self._change(*self._dice.choice(self._pairs()))
            self._stop_sending = True
            for thread in senders:
                thread.join()
            result = self._settle()
        finally:
            self._stop_sending = self._stop_receiving = True
            for thread in (*senders, *receivers):
                thread.join()
            for side in self._all():
                side.close()
        return result

    def _done(self, elapsed: float, seconds: float) -> bool:
        """Whether the traffic may end."""
        if elapsed < seconds:
            return False
        enough = (
            self._changes["rekey"] >= REKEYS
            and sum(side.received for side in self._sides) >= PACKETS
            and (not self._rough or bool(BRUTAL & self._drops.keys()))
        )
        return enough or elapsed > seconds + PATIENCE

    def _begin(self) -> None:
        for side, other in self._pairs():
            side.pump.start()
            self._rekey(side, other)

    def _all(self) -> list[Side]:
        """Whoever has a pump."""
        return list(self._sides)

    def _way(self, other: Side) -> Endpoint:
        """The endpoint of flows to ``other``."""
        return other.endpoint

    def _pairs(self) -> list[tuple[Side, Side]]:
        left, right = self._sides
        return [(left, right), (right, left)]

    # --- Applications -----------------------------------------------------------------------

    def _send(self, side: Side, other: Side) -> None:
        while not self._stop_sending:
            if self._under_way() >= WINDOW:
                select.select([], [], [], 0.0005)  # the tunnel is full
                continue
            try:
                side.send()
            except TimeoutError:
                continue  # the pump gets no processor on a busy machine

    def _under_way(self) -> int:
        arrived = sum(side.received for side in self._sides) + self._drops.total()
        return sum(side.sent for side in self._sides) - arrived

    def _receive(self, side: Side) -> None:
        while not self._stop_receiving:
            try:
                side.take(side.tun.recv(2048, 0.05))
            except TimeoutError:
                continue

    # --- The control thread -----------------------------------------------------------------

    def _change(self, side: Side, other: Side) -> None:
        """One change of the tables of ``side``, who sends to ``other``."""
        change = self._dice.choice(self._kinds())
        self._changes[change.__name__.strip("_")] += 1
        change(side, other)
        self._retire()
        self._count()

    def _kinds(self) -> list[Callable[[Side, Side], None]]:
        """The changes that one of is made next."""
        changes = [self._rekey, self._others, self._others, self._look]
        if self._rough:
            changes += [self._replace, self._lose_flow, self._lose_inbound, self._wrong_flow]
        return changes

    def _new_sa(self, side: Side, other: Side) -> SaParams:
        self._spi += 1
        suite = self._dice.choice(self._suites)
        key = key_of(suite, self._dice.randrange(256))
        return SaParams(self._spi, suite, key, side.ours, other.ours)

    def _install(self, side: Side, other: Side, sa: SaParams) -> None:
        other.pump.install_inbound(
            SaParams(sa.spi, sa.suite, sa.key, other.ours, side.ours, sa.esn, sa.mode)
        )
        side.pump.install_outbound(sa)

    def _rekey(self, side: Side, other: Side) -> None:
        """As IKE does it: the receiver first, the old SA goes when nothing is under way on it."""
        sa, old = self._new_sa(side, other), self._sending.get(side)
        self._install(side, other, sa)
        side.pump.set_flow(other.ours, sa.spi, self._way(other))
        self._sending[side] = sa
        if old is not None:
            self._retired.append((side, other, old.spi))

    def _retire(self) -> None:
        """Takes away the SAs whose packets have all arrived (if some cannot, the oldest)."""
        kept = []
        for place, (side, other, spi) in enumerate(self._retired):
            sealed, opened = side.pump.outbound_counters(spi), other.pump.inbound_counters(spi)
            arrived = sealed and opened and sealed.packets == opened.packets
            if arrived or sealed is None or opened is None:
                side.pump.remove_outbound(spi)
                other.pump.remove_inbound(spi)
            elif not self._rough or len(self._retired) - place < 8:
                kept.append((side, other, spi))
            else:
                other.pump.remove_inbound(spi)
                side.pump.remove_outbound(spi)
        self._retired = kept

    def _others(self, side: Side, other: Side) -> None:
        """SAs and flows of other peers come, change and go; the tables grow and shrink."""
        for _ in range(20):
            number = self._dice.randrange(OTHERS)
            peer = PEER_ID[:8] + number.to_bytes(8, "big")
            spi = 0x8000_0000 + number
            if self._dice.random() < 0.5:
                sa = SaParams(spi, Suite.AES128GCM16, key_of(Suite.AES128GCM16), side.ours, peer)
                side.pump.install_inbound(sa)
                side.pump.install_outbound(sa)
                side.pump.set_flow(peer, spi, ("192.0.2.1", 4500))
            else:
                side.pump.clear_flow(peer)
                side.pump.remove_outbound(spi)
                side.pump.remove_inbound(spi)

    def _look(self, side: Side, other: Side) -> None:
        """What the control plane does all the time: events and counters."""
        side.pump.drain()
        side.pump.counters()
        other.pump.inbound_counters(self._sending[side].spi)

    def _replace(self, side: Side, other: Side) -> None:
        """The same SPI with another key, while packets are under way: some fail their ICV."""
        old = self._sending[side]
        key = key_of(old.suite, self._dice.randrange(256))
        sa = SaParams(old.spi, old.suite, key, old.local_id, old.peer_id)
        self._install(side, other, sa)
        self._sending[side] = sa

    def _lose_flow(self, side: Side, other: Side) -> None:
        before = side.pump.counters().get("drop_no_flow", 0)
        side.pump.clear_flow(other.ours)
        deadline = time.monotonic() + GLIMPSE
        while side.pump.counters().get("drop_no_flow", 0) == before:
            if time.monotonic() > deadline:
                break
        side.pump.drain()
        sa = self._sending[side]
        side.pump.set_flow(other.ours, sa.spi, self._way(other))

    def _lose_inbound(self, side: Side, other: Side) -> None:
        other.pump.remove_inbound(self._sending[side].spi)
        self._rekey(side, other)

    def _wrong_flow(self, side: Side, other: Side) -> None:
        """A flow that names an SA which is not there."""
        side.pump.set_flow(other.ours, 0x7777_7777, self._way(other))
        side.pump.drain()
        self._lose_flow(side, other)

    # --- What became of it ------------------------------------------------------------------

    def _count(self) -> Counter[str]:
        drops: Counter[str] = Counter()
        for side in self._all():
            for name, count in side.pump.counters().items():
                # An acquire event without room is a packet that was counted as NO_FLOW before.
                if name.startswith("drop_") and name != "drop_queue_full":
                    drops[name.removeprefix("drop_")] += count
            drops["kernel"] += side.kernel_drops()
        self._drops = +drops
        return self._drops

    def _settle(self) -> Result:
        deadline = time.monotonic() + PATIENCE
        while True:
            result = Result(
                sent=sum(side.sent for side in self._sides),
                drops=self._count(),
                received=sum(side.received for side in self._sides),
                wrong=[text for side in self._sides for text in side.wrong],
                changes=self._changes,
            )
            if result.lost == 0 or time.monotonic() > deadline:
                return result
            select.select([], [], [], 0.01)


def main() -> int:
    """Exit code 0 when nothing was lost, doubled, overtaken or changed."""
    parser = argparse.ArgumentParser(prog="tests.stress.traffic", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rough", action="store_true")
    parser.add_argument("--queues", type=int, default=1)
    parser.add_argument("--relayed", action="store_true", help="through a home agent")
    options = parser.parse_args()
    pump = native_module("_pump").NativePump
    make = Stress
    if options.relayed:
        from tests.stress.relayed import RelayedStress  # it builds upon this module

        make = RelayedStress
    stress = make(pump, rough=options.rough, seed=options.seed, queues=options.queues)
    result = stress.run(options.seconds)
    print(f"seed {options.seed}: {result}", file=sys.stderr)
    return int(bool(result.lost or result.wrong))


if __name__ == "__main__":
    sys.exit(main())
