"""Clients of a zone server for ``python -m bench zone``: the same messages for every contender.

Messages are made and signed before the clock starts, so that the generator costs little and the
same: what is measured is the server.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from bench.zone_servers import DOMAIN, KEY
from discovery import llq, tsig
from discovery.llq import LlqOption
from discovery.types import Endpoint
from tunnel.io.lab import LabError

WINDOW: Final = 64  # messages under way
PATIENCE: Final = 10.0  # seconds without an answer

_LEASE: Final = struct.pack("!HHI", 2, 4, 7200)


def host(number: int) -> str:
    """Return the name of a host."""
    return f"host{number:07d}.{DOMAIN}."


def update(number: int, identity: int) -> bytes:
    """Return the signed UPDATE with which host ``number`` registers or refreshes what B20 has: SRV,
    A, AAAA and TXT, under a lease of two hours."""
    name = host(number)
    target = f"autotunnel-{number:07x}.{DOMAIN}."
    identifier = f"fd00::{number >> 16:x}:{number & 0xFFFF:x}"
    records = (
        _record(f"_autotunnel._udp.{name}", "SRV", f"0 0 4500 {target}"),
        _record(target, "A", f"198.51.{number >> 8 & 0xFF}.{number & 0xFF}"),
        _record(target, "AAAA", identifier),
        _record(target, "TXT", f'"v=1 host={number}"'),
        _record(name, "AAAA", identifier),
    )
    header = struct.pack("!6H", identity, 0x2800, 1, 0, len(records), 1)
    zone = _name(DOMAIN + ".") + struct.pack("!HH", 6, 1)
    return _signed(header + zone + b"".join(records) + _opt(_LEASE))


def move(number: int, turn: int) -> bytes:
    """Return the signed UPDATE that gives a host another address in place of the last."""
    name = host(number)
    gone = _name(name) + struct.pack("!HHIH", 28, 255, 0, 0)
    header = struct.pack("!6H", turn, 0x2800, 1, 0, 2, 1)
    zone = _name(DOMAIN + ".") + struct.pack("!HH", 6, 1)
    return _signed(header + zone + gone + _record(name, "AAAA", f"fd00::{turn:x}") + _opt(_LEASE))


def send_only(server: Endpoint, wire: bytes) -> float:
    """Send one message, leave its answer alone, and return when it was sent (perf_counter)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        began = time.perf_counter()
        asking.sendto(wire, server)
        return began


def query(number: int, identity: int) -> bytes:
    """Return a signed question for a host's AAAA."""
    return _signed(_asked(host(number), 28, identity, b""))


def llq_request(name: str, option: LlqOption, identity: int) -> bytes:
    """Return a signed request about one long-lived query for AAAA."""
    return _signed(_asked(name, 28, identity, llq.pack_options([option])))


def _asked(name: str, rdtype: int, identity: int, options: bytes) -> bytes:
    header = struct.pack("!6H", identity, 0x0100, 1, 0, 0, 1)
    return header + _name(name) + struct.pack("!HH", rdtype, 1) + _opt(options)


def _opt(options: bytes) -> bytes:
    return struct.pack("!BHHIH", 0, 41, 1232, 0, len(options)) + options


def _record(name: str, rdtype: str, text: str) -> bytes:
    rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), text)
    data = rdata.to_digestable()
    return _name(name) + struct.pack("!HHIH", rdata.rdtype, 1, 120, len(data)) + data


def _name(text: str) -> bytes:
    return dns.name.from_text(text).to_digestable()


def _signed(wire: bytes) -> bytes:
    return tsig.sign(wire, KEY, int(time.time()))[0]


def blast(server: Endpoint, wires: Sequence[bytes]) -> float:
    """Ask all, :data:`WINDOW` at a time, and return the seconds until the last answer. Raises
    :exc:`LabError` for an RCODE other than NOERROR or an answer that does not come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(server)
        asking.settimeout(PATIENCE)
        began = time.perf_counter()
        sent = answered = 0
        while answered < len(wires):
            while sent < len(wires) and sent - answered < WINDOW:
                asking.send(wires[sent])
                sent += 1
            try:
                answer = asking.recv(65535)
            except TimeoutError:
                raise LabError(f"{len(wires) - answered} answers did not come") from None
            if answer[3] & 15:
                raise LabError(f"an answer has RCODE {answer[3] & 15}")
            answered += 1
        return time.perf_counter() - began


def paced(server: Endpoint, kinds: Sequence[tuple[Sequence[bytes], int]]) -> float:
    """Ask each kind of message at its rate per second; return the answers that came, of all."""
    due = sorted(
        (number / rate, wire) for wires, rate in kinds for number, wire in enumerate(wires)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(server)
        asking.setblocking(False)
        ready = select.poll()
        ready.register(asking, select.POLLIN)
        began, answered, sent = time.perf_counter(), 0, 0
        last = began + due[-1][0] + PATIENCE
        while (now := time.perf_counter()) < last and answered < len(due):
            while sent < len(due) and due[sent][0] <= now - began:
                asking.send(due[sent][1])
                sent += 1
            until = began + due[sent][0] if sent < len(due) else last
            if ready.poll(max(0.0, until - time.perf_counter()) * 1000):
                answered += asking.recv(65535)[3] & 15 == 0
        return answered / len(due)


@dataclass(slots=True)
class _Subscriber:
    socket: socket.socket
    name: str
    id: int = 0
    echo: bytes = b""


class Subscribers:
    """Many long-lived queries for one name, each from a port of its own."""

    def __init__(self, server: Endpoint, count: int, name: Callable[[int], str]) -> None:
        self._poll = select.epoll()
        self._all: dict[int, _Subscriber] = {}
        for number in range(count):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            asking.setblocking(False)
            asking.connect(server)
            self._all[asking.fileno()] = _Subscriber(asking, name(number))
            self._poll.register(asking.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close all sockets; the server finds out by itself."""
        self._poll.close()
        for one in self._all.values():
            one.socket.close()

    def establish(self) -> None:
        """Go through all handshakes."""
        for _ in range(2):
            waiting = list(self._all.values())
            for start in range(0, len(waiting), WINDOW):
                self._ask(waiting[start : start + WINDOW])

    def refreshes(self, count: int) -> list[bytes]:
        """Return signed refreshes of the first ``count`` queries, to be asked from any port."""
        some = list(self._all.values())[:count]
        return [
            llq_request(one.name, LlqOption(llq.REFRESH, id=one.id, lease=7200), number & 0xFFFF)
            for number, one in enumerate(some)
        ]

    def _ask(self, some: Sequence[_Subscriber]) -> None:
        for one in some:
            option = LlqOption(llq.SETUP, id=one.id, lease=7200)
            one.socket.send(llq_request(one.name, option, one.socket.fileno()))
        self._gather({one.socket.fileno() for one in some}, self._granted)

    def _granted(self, one: _Subscriber, answer: bytes) -> None:
        at = answer.index(b"\x00\x01\x00\x12\x00\x01") + 4
        option = LlqOption.parse(answer[at : at + llq.OPTION_SIZE])
        if option.error:
            raise LabError(f"a long-lived query got error {option.error}")
        one.id = option.id
        echo = llq.pack_options([LlqOption(llq.EVENT, id=option.id)])
        one.echo = b"\x80" + _asked(one.name, 28, 0, echo)[3:]

    def hear(self) -> float:
        """Take and acknowledge one event each; return when the last came (perf_counter)."""
        return self._gather(set(self._all), self._acknowledge)

    @staticmethod
    def _acknowledge(one: _Subscriber, event: bytes) -> None:
        one.socket.send(event[:2] + one.echo)

    def _gather(self, waiting: set[int], take: Callable[[_Subscriber, bytes], None]) -> float:
        while waiting:
            found = self._poll.poll(PATIENCE, 512)
            if not found:
                raise LabError(f"{len(waiting)} subscribers heard nothing")
            for number, _ in found:
                one = self._all[number]
                message = one.socket.recv(65535)
                take(one, message)
                waiting.discard(number)
        return time.perf_counter()
