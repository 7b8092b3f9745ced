"""The control thread changes everything while packets pass; nothing wrong ever comes out.

Built with -fsanitize=thread or -fsanitize=address, the modules must be silent under this load.
"""

from __future__ import annotations

import random
import socket
import threading

from fastpath.reference.segment import cut
from fastpath.types import Opened
from tests.fastpath.inner_flows import large, tcp
from tests.fastpath.support import OUR_ID, PEER_ID, SPI, native_module, params, tunnelled_out
from tests.fastpath.test_native_merge import VnetRig

UPDATES = 1500
LOOPBACK = socket.if_nametoindex("lo")


class Load:
    """Packets in both directions, and what comes out of them, until ``end``."""

    def __init__(self, rig: VnetRig) -> None:
        self.end = threading.Event()
        self.rig = rig
        self.inner = [tcp(bytes([n]) * 900, 1 + 900 * n) for n in range(64)]
        self.frame = large(tcp(b"q" * 20_000, source=OUR_ID, destination=PEER_ID), 1328)
        self.expected = set(cut(self.frame, 1400)) | set(cut(self.frame, 1280))
        self.wrong: list[bytes] = []
        self.seen = 0
        # Every outbound SA has the same key, so any packet to the peer can be opened.
        self.threads = [threading.Thread(target=one) for one in (self._inwards, self._outwards)]

    def _inwards(self) -> None:
        known = set(self.inner)
        while not self.end.is_set():
            for packet in self.inner:
                self._try_send(packet)
            for frame in self._received(self.rig.tun):
                self.wrong += [one for one in cut(frame, 65535) if one not in known]

    def _outwards(self) -> None:
        opener = native_module("_esp").InboundSa
        while not self.end.is_set():
            try:
                self.rig.tun.send(self.frame)
            except BlockingIOError:
                self.end.wait(0.001)
            for datagram in self._received(self.rig.far):
                if len(datagram) < 100:
                    continue  # a keepalive or a dummy packet
                spi = int.from_bytes(datagram[:4], "big")
                opened = opener(params(spi=spi)).open(datagram)
                if not isinstance(opened, Opened) or opened.payload not in self.expected:
                    self.wrong.append(datagram)

    def _try_send(self, packet: bytes) -> None:
        try:
            self.rig.far.sendto(self.rig.peer_out.seal(packet), self.rig.udp.getsockname())
        except BlockingIOError:
            self.end.wait(0.001)

    def _received(self, sock: object) -> list[bytes]:
        taken: list[bytes] = []
        while len(taken) < 100:
            try:
                taken.append(sock.recv(70_000))
            except BlockingIOError:
                break
        self.seen += len(taken)
        return taken


def test_tables_change_under_traffic_and_nothing_wrong_comes_out() -> None:
    rig = VnetRig()
    pump, dice = rig.pump, random.Random(5)
    far = ("127.0.0.1", rig.far.getsockname()[1])
    load = Load(rig)
    pump.start()
    for thread in load.threads:
        thread.start()
    try:
        for step in range(UPDATES):
            spi = 1000 + step % 50
            pump.install_inbound(params(spi=spi))
            pump.install_outbound(params(spi=spi))
            pump.set_flow(PEER_ID, SPI + 1 if step % 3 else spi, far)
            pump.remove_inbound(1000 + dice.randrange(50))
            pump.remove_outbound(1000 + dice.randrange(50))
            if step % 7 == 0:
                pump.install_outbound(params(spi=SPI + 1))
            if step % 11 == 0:
                pump.clear_flow(PEER_ID)
            pump.send(b"\xff", far)
            pump.send_dummy(SPI + 1, far)
            source = (far[0], LOOPBACK) if step % 2 else None
            pump.send_inner(SPI + 1, far, tunnelled_out(b""), source)
            pump.counters(), pump.inbound_counters(SPI), pump.outbound_counters(SPI + 1)
            pump.drain()
    finally:
        load.end.set()
        for thread in load.threads:
            thread.join()
        counters = pump.counters()
        rig.close()
    assert load.wrong == []
    assert load.seen > 100
    unexpected = {"drop_authentication", "drop_replay", "drop_selector", "drop_malformed"}
    assert not unexpected & set(counters), counters
