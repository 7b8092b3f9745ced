"""Whole endpoints: strangers at a responder, broken messages at hosts that stand, and two hosts
whose network and whose every message the octets govern.

After each input: nothing has raised, tables are within their limits, nothing is half-open once
its time is over, and an honest host gets in.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from keys.ike.cipher import IntegrityError, MessageCipher
from keys.ike.header import HEADER_OCTETS, Exchange, Header, HeaderError, decode_header
from keys.ike.payloads import Contents, PayloadType, encode_chain
from keys.ike.sa import IkeSa
from keys.ike.types import ChildPolicy, Ppk, SendIke, Traffic
from tests.guided.parsers import full_contents
from tests.keys.ike.net import DELAY, Datagram, Net, Side, pair

_PATIENCE = 700.0  # seconds after which every exchange has ended, retransmissions and all
_FROM = (("198.51.100.7", 4500), ("2001:db8::7", 500), ("192.0.2.1", 4500), ("192.0.2.2", 1))


def check_bounds(side: Side, net: Net) -> None:
    """What one host keeps about the others."""
    ctx, settings = side.ike._ctx, side.ike._ctx.settings
    per_peer = settings.sas_per_peer * 3  # attempts and reserved ones beside those that stand
    assert len(ctx) <= settings.half_open_limit + per_peer * len(net.sides)
    assert ctx.half_open.total <= settings.half_open_limit and len(ctx.asks) <= settings.ask_limit
    assert len(ctx._by_request) <= len(ctx)
    assert sum(len(named) for named in ctx._by_name.values()) <= len(ctx)
    assert len(ctx.echoes._answers) <= ctx.echoes.LIMIT
    for sa in ctx:
        # Between Delete and its answer old children stand beside new ones.
        assert len(sa.children) <= settings.children_per_sa * 4
        assert len(sa.queue) <= settings.queue_limit


def check_rest(side: Side) -> None:
    """When all has come to its end: no attempt, nothing half-open, no SPI without its child."""
    ctx = side.ike._ctx
    assert ctx.half_open.total == len(ctx.half_open) == len(ctx.asks) == 0
    assert set(ctx._by_request.values()) <= set(ctx)
    for sa in ctx:
        assert sa.is_established, f"{side.name} is left with an SA that is {sa.state.value}"
        assert sa.task is None and not sa.queue and sa.window.outstanding is None
        assert sa.series is None and sa.reserved is None
        assert sa.asked.until is None and sa.told.until is None
    held = {child.sa.spi_in for sa in ctx for child in sa.children.values()}
    assert ctx._child_spis == held, f"{side.name} leaks {len(ctx._child_spis - held)} SPIs"
    assert set(side.inbound) == held


def with_right_length(data: bytes) -> bytes:
    """Past the first check of the header."""
    return data[:24] + len(data).to_bytes(4, "big") + data[28:] if len(data) >= 28 else data


# --- Strangers ------------------------------------------------------------------------------------


@functools.cache
def _recorded() -> tuple[bytes, ...]:
    """Every kind of message once, of two hosts with all extensions in use."""
    net, desk, lap = pair(additional=("mlkem768",), fragment_ipv4=400)
    net.connect(desk, lap)
    net.play(3)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(5)
    desk.address = ("203.0.113.7", 4500)
    net.run(desk, desk.ike.move([desk.address], net.now))
    net.play(5)
    net.run(desk, desk.ike.orphan(77, lap.address, net.now))
    net.play(5)
    net.run(lap, lap.ike.close(desk.name, net.now))
    net.play(5)
    return tuple(datagram.data for datagram in net.sent)


def stranger_seeds() -> Sequence[bytes]:
    short = [data for data in _recorded() if len(data) < 700]
    return [bytes((number % 256,)) + data for number, data in enumerate(short)]


def strangers(data: bytes) -> None:
    """The same octets, as they are and with a right length, sixteen times from four places."""
    if not data:
        return
    net, _, lap = pair(cookie_threshold=4, half_open_limit=8, half_open_per_source=3)
    for number in range(16 if data[0] & 1 else 2):
        message = data[1:] if data[0] & 2 else with_right_length(data[1:])
        if data[0] & 4 and len(message) > 8:
            message = bytes((number + 1,)) + message[1:]  # another SPI: another stranger
        commands = lap.ike.receive(message, _FROM[number % 4], net.now)
        assert len([one for one in commands if isinstance(one, SendIke)]) <= 2
        check_bounds(lap, net)
    net.play(60)
    check_rest(lap)
    assert len(lap.ike._ctx) == 0


# --- What stands ----------------------------------------------------------------------------------


@functools.cache
def _standing() -> tuple[Net, Side, Side, frozenset[bytes]]:
    net, desk, lap = pair(additional=("mlkem768",), fragment_ipv4=400)
    net.connect(desk, lap)
    net.play(3)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(10)
    assert net.pair_is_up()
    return net, desk, lap, frozenset(datagram.data for datagram in net.sent)


def standing_seeds() -> Sequence[bytes]:
    return [bytes((number % 4,)) + data for number, data in enumerate(sorted(_standing()[3]))]


def standing(data: bytes) -> None:
    """A stranger's octets at two hosts that stand: nothing of theirs changes."""
    net, desk, lap, seen = _standing()
    if not data:
        return
    side = (desk, lap)[data[0] & 1]
    message = data[1:] if data[0] & 2 else with_right_length(data[1:])
    if len(message) > 24 and data[0] & 4:
        sa = next(iter(side.ike._ctx))
        header = sa.header(Exchange(36 + data[0] % 2), sa.window.expected, response=False)
        message = with_right_length(header.encode()[:16] + message[16:])
    if message in seen:
        return  # as it was it is no attack
    views, inbound, outbound = side.ike.views(), dict(side.inbound), side.outbound
    commands = side.ike.receive(message, _FROM[data[0] >> 6], net.now)
    assert len([one for one in commands if isinstance(one, SendIke)]) <= 8  # in fragments
    assert side.ike.views() == views and (side.inbound, side.outbound) == (inbound, outbound)
    check_bounds(side, net)
    net.now += 0.5
    net.run(side, side.ike.advance(net.now))
    if side.ike._ctx.half_open.total or len(list(side.ike._ctx)) > 1:
        net.play(60)
    else:
        net.play(0.4)  # a hint made us look
    assert net.pair_is_up()
    net.sent.clear()


# --- Sessions -------------------------------------------------------------------------------------


class Octets:
    """The input, one octet at a time; zeros when it is used up, which stand for nothing special."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self) -> int:
        octet = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return octet

    def __bool__(self) -> bool:
        return self._at < len(self._data)


class Session:
    """Two hosts; the octets say what each side does next and what becomes of each datagram."""

    def __init__(self, data: bytes) -> None:
        self.octets = Octets(data)
        options = self.octets.take()
        self.net = Net(
            seed=options,
            additional=("mlkem768",) if options & 1 else (),
            fragment_ipv4=200 if options & 2 else 576,
            mobike=not options & 4,
            pfs=not options & 8,
        )
        names = ("desk.alice.example", "lap.alice.example")
        if options & 16:
            for one, other in (names, names[::-1]):
                self.net.ppks[one, other] = Ppk(b"one", bytes(32), required=bool(options & 32))
        self.desk, self.lap = self.net.add(names[0], 1), self.net.add(names[1], 2)
        self.honest = True
        self.net.fate = self.fate
        self.net.tamper = self.tamper
        self.lap.answer_asks = not options & 64

    # --- the network ---

    def fate(self, datagram: Datagram) -> list[float]:
        """Most octets deliver it."""
        match self.octets.take():
            case 1:
                return []
            case 2:
                return [DELAY, DELAY]
            case 3:
                return [1.1]
            case 4:
                return [DELAY, 3.0]
            case _:
                return [DELAY]

    def tamper(self, datagram: Datagram) -> bytes:
        data, way = bytearray(datagram.data), self.octets.take()
        at = (self.octets.take() | self.octets.take() << 8) % len(data) if way in range(1, 6) else 0
        match way:
            case 1:
                data[at] ^= 1 << self.octets.take() % 8
            case 2:
                data[at] = self.octets.take()
            case 3:
                del data[at:]
            case 4:
                data[at:at] = bytes((self.octets.take(),)) * (1 + self.octets.take() % 16)
            case 5:
                del data[at : at + 1 + self.octets.take() % 16]
            case 6 | 7:
                return self._reseal(datagram)
            case _:
                return bytes(data)
        if decode_exchange(datagram.data) == Exchange.IKE_SA_INIT and bytes(data) != datagram.data:
            self.honest = False  # unprotected: AUTH must find it out, an attempt may fail
        return with_right_length(bytes(data)) if self.octets.take() & 1 else bytes(data)

    def _reseal(self, datagram: Datagram) -> bytes:
        """The message as a peer gone mad would have sent it: other payloads, the right keys."""
        sender, receiver = self.net.sides[datagram.sender], self.net.sides[datagram.receiver]
        ours, theirs = _sa_of(sender, datagram.data), _sa_of(receiver, datagram.data)
        if ours is None or theirs is None or not ours._seal or not theirs._open:
            return datagram.data
        try:
            opened = theirs._open.open(datagram.data)
        except IntegrityError:
            return datagram.data
        self.honest = False
        header = decode_header(datagram.data)
        first, chain = self._changed(opened.first, bytearray(opened.plain[:-1]))
        return _seal(ours._seal, header, first, chain)

    def _changed(self, first: int, chain: bytearray) -> tuple[int, bytes]:
        for _ in range(1 + self.octets.take() % 3):
            way, at = self.octets.take(), 0
            if chain:
                at = (self.octets.take() | self.octets.take() << 8) % len(chain)
            match way % 8:
                case 0 if chain:
                    chain[at] ^= 1 << self.octets.take() % 8
                case 1 if chain:
                    chain[at] = self.octets.take()
                case 2:
                    del chain[at:]
                case 3:
                    first, chain = 0, bytearray()
                case 4:
                    first = self.octets.take()
                case 5:
                    first, grown = self._one_more(first, bytes(chain))
                    chain = bytearray(grown)
                case 6:
                    first, whole = encode_chain(full_contents().encode())
                    chain = bytearray(whole)
                case _:
                    del chain[at : at + 1 + self.octets.take() % 16]
        return first, bytes(chain)

    def _one_more(self, first: int, chain: bytes) -> tuple[int, bytes]:
        """A payload before the others: most often a notification."""
        kind = self.octets.take()
        data = bytes((self.octets.take(),)) * (self.octets.take() % 32)
        if kind < 128:
            notify = (self.octets.take() << 8 | self.octets.take()) & 0x40FF
            protocol, spi = (3, self._some_spi()) if kind & 1 else (0, b"")
            body = bytes((protocol, len(spi))) + notify.to_bytes(2, "big") + spi + data
            kind = PayloadType.NOTIFY
        elif kind < 192:
            spi = self._some_spi()
            body = bytes((3, 4, 0, 1)) + spi if kind & 1 else bytes((1, 0, 0, 0))
            kind = PayloadType.DELETE
        else:
            kind, body = 33 + kind % 22, data
        critical = 0x80 if self.octets.take() & 1 else 0
        return kind, bytes((first, critical)) + (4 + len(body)).to_bytes(2, "big") + body + chain

    def _some_spi(self) -> bytes:
        spis = sorted({*self.desk.inbound, *self.lap.inbound, 0x11223344})
        return spis[self.octets.take() % len(spis)].to_bytes(4, "big")

    # --- the hosts ---

    def act(self) -> None:
        """One thing that an owner does, or time."""
        octet, now = self.octets.take(), self.net.now
        side, peer = (self.desk, self.lap) if octet & 0x80 else (self.lap, self.desk)
        ike, name = side.ike, peer.name
        match octet % 16:
            case 0:
                self.net.connect(side, peer)
            case 1:
                self.net.run(side, ike.rekey(name, now))
            case 2:
                self.net.run(side, ike.probe(name, now))
            case 3:
                self.net.run(side, ike.close(name, now))
            case 4:
                number = 3 * side.host_id.packed[15] + self.octets.take() % 3
                side.address = (f"203.0.113.{number}", 4500)
                self.net.run(side, ike.move([side.address], now))
            case 5:
                self.net.run(side, ike.traffic(name, None, now, now))
            case 6:
                self.net.run(side, ike.orphan(self.octets.take(), peer.address, now))
            case 7:
                self.net.run(side, ike.moved(name, peer.address, now))
            case 8:
                self.net.restart(side)
            case 9:
                self._speak_out_of_turn(side, peer)
            case 10:
                self._want(side, name, self.octets.take())
            case _:
                self._age(side, ike._ctx.current(name), octet % 16)
                self.net.play(1 + self.octets.take() / 4)

    def _want(self, side: Side, name: str, octet: int) -> None:
        """One child more or less, or an owner who does or does not answer."""
        traffic = Traffic((6, 17)[octet >> 2 & 1], peer_ports=(octet, 255))
        match octet & 3:
            case 0:
                side.answer_asks = not side.answer_asks
            case 1:
                self.net.run(side, side.ike.remove(name, traffic, self.net.now))
            case _:
                self.net.run(side, side.ike.add(name, ChildPolicy(traffic), self.net.now))

    def _age(self, side: Side, sa: IkeSa | None, way: int) -> None:
        """A lifetime comes to its end before its time, by the clock or by what it has carried."""
        if sa is None or sa.name is None:
            return
        child = next(iter(sa.children.values()), None)
        if way == 12:
            sa.rekey_at = self.net.now
        elif way == 13:
            sa.expires_at = self.net.now
        elif way == 14 and child is not None:
            child.expires_at = self.net.now
        elif child is not None:
            counts = {child.sa.spi_in: (2**31 - 1, 1)}
            self.net.run(side, side.ike.used(sa.name, counts, self.net.now))

    def _speak_out_of_turn(self, side: Side, peer: Side) -> None:
        """An authenticated request or answer of any kind that nobody asked for."""
        sa = side.ike._ctx.current(peer.name)
        if sa is None or sa._seal is None:
            return
        self.honest = False
        contents = full_contents() if self.octets.take() & 1 else Contents()
        first, chain = self._changed(*_as_array(encode_chain(contents.encode())))
        exchange = (35, 36, 37, 43, 44, 37, 36, 44)[self.octets.take() % 8]
        response = bool(self.octets.take() & 1)
        message_id = sa.window.expected - 1 if response else sa.window.next_id
        header = sa.header(Exchange(exchange), max(0, message_id), response=response)
        data = sa._seal.seal_chain(header, first, chain)
        if not response:
            sa.window.next_id += 1
        self.net.run(peer, peer.ike.receive(data, side.address, self.net.now))

    # --- the whole ---

    def run(self) -> None:
        self.net.connect(self.desk, self.lap)
        self.net.play(2)
        for _ in range(24):
            if not self.octets:
                break
            self.act()
            self.net.play(0.3)
            for side in (self.desk, self.lap):
                check_bounds(side, self.net)
        self._end()

    def _end(self) -> None:
        """The network is good again, time passes, and whoever is honest gets in."""
        self.net.fate, self.net.tamper = (lambda _: [DELAY]), (lambda datagram: datagram.data)
        self.desk.answer_asks = self.lap.answer_asks = True
        self.net.play(_PATIENCE)
        if not self.honest:
            # What a host gone mad has agreed to is its own harm; its next life is a good one.
            self.net.restart(self.desk)
        for side in (self.lap, self.desk):
            check_bounds(side, self.net)
        self.net.connect(self.desk, self.lap)
        self.net.play(_PATIENCE)
        for side in (self.desk, self.lap):
            check_rest(side)
        self._use()
        assert self.net.pair_is_up()

    def _use(self) -> None:
        """Applications send: ESP with an SPI that the other host does not hold makes its engine
        say so, and silence makes the sender look (RFC 7296 §1.5, §2.4)."""
        for side, peer in ((self.desk, self.lap), (self.lap, self.desk)):
            if side.outbound is not None and not self.net.understood(side, peer):
                spi = side.outbound.spi_out
                self.net.run(peer, peer.ike.orphan(spi, side.address, self.net.now))
                self.net.play(60)
            self.net.connect(side, peer)
            self.net.play(60)


def decode_exchange(data: bytes) -> int:
    """The exchange type of a message of ours."""
    return data[18]


def _as_array(chain: tuple[int, bytes]) -> tuple[int, bytearray]:
    return chain[0], bytearray(chain[1])


def _sa_of(side: Side, data: bytes) -> IkeSa | None:
    try:
        header = decode_header(data)
    except HeaderError:
        return None
    return side.ike._ctx.find(header.spi_i) or side.ike._ctx.find(header.spi_r)


def _seal(cipher: MessageCipher, header: Header, first: int, chain: bytes) -> bytes:
    bare = replace(header, next_payload=0, length=HEADER_OCTETS)
    return cipher.seal_chain(bare, first, chain)


def session_seeds() -> Sequence[bytes]:
    honest = [bytes((options,)) for options in (0, 1, 3, 16, 17)]
    acts = [bytes((0,)) + bytes(12) + bytes((act, 0, 0, 0, 0, 0)) * 3 for act in range(16)]
    mad = [bytes((1, 0, 0, 0, 0, 0, 6, 1, way, 9, 0, 255)) for way in range(8)]
    return [*honest, *acts, *mad]


def session(data: bytes) -> None:
    Session(data).run()
