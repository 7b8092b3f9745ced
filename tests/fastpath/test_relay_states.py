"""Any order of table changes and packets, as no honest control plane would make it: both engines
say the same after each step, octet by octet and counter by counter.

The host is all at once: a home agent of A, B and C, a peer of each, and itself behind one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fastpath.reference import relay
from fastpath.reference.esp import OutboundSa
from fastpath.types import Endpoint, Mode, SaParams
from tests.fastpath.relays import (
    AGENT,
    FIRST_WORD,
    HOST_A,
    HOST_B,
    HOST_C,
    IKE,
    MESSAGE,
    MOBILITY,
    as_probe,
    nested,
    nested_ike,
    relay_endpoint,
    relay_sa,
    sa,
    with_hop_limit,
)
from tests.fastpath.support import ipv6, native_module
from tests.fastpath.test_pump_conformance import Rig, endpoint_of
from tests.fastpath.test_relay_agrees import Both

HOSTS = [HOST_A, HOST_B, HOST_C]
EVERYBODY = [*HOSTS, AGENT]
hosts, everybody = st.sampled_from(HOSTS), st.sampled_from(EVERYBODY)
kinds = st.sampled_from(["relay", "tunnel", "transport", "mobility"])
lengths = st.sampled_from([0, 1, 2, 3, 7, 500, 1200, 1200, 1201])
hops = st.sampled_from([0, 1, 2, 64, 64, 64, 255])


def params_of(kind: str, spi: int, sender: bytes, receiver: bytes, *, inbound: bool) -> SaParams:
    if kind == "relay":
        return relay_sa(spi, sender, receiver, inbound=inbound)
    mode = Mode.TUNNEL if kind == "tunnel" else Mode.TRANSPORT
    traffic = MOBILITY if kind == "mobility" else None
    return sa(spi, sender, receiver, inbound=inbound, mode=mode, traffic=traffic)


class AnyOrder(RuleBasedStateMachine):
    """``inbound`` are SAs that a host seals in, for us; ``outbound`` those that we seal in."""

    @initialize()
    def begin(self) -> None:
        self.rig = Rig(native_module("_pump").NativePump, host_id=AGENT)
        self.rig.pump.start()
        self.both = Both(self.rig, AGENT)
        self.inbound: list[tuple[OutboundSa, bytes]] = []
        self.outbound: list[tuple[int, bytes]] = []
        self.spi = 0x1000
        self.sealed: list[bytes] = []
        for host in HOSTS:
            self.install(host, "tunnel")
            self.install_out(host, "tunnel")
            self.register(host)

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            try:
                self.both.same_counters(
                    sorted({one.params.spi for one, _ in self.inbound}),
                    sorted({spi for spi, _ in self.outbound}),
                )
            finally:
                self.rig.close()

    def change(self, act: Callable[[Any], None]) -> None:
        for table in self.both.tables:
            act(table)

    def settle(self) -> None:
        self.both.settle()
        self.both.same_events()

    def place(self, data: st.DataObject) -> Endpoint:
        """Any endpoint: outer ones that listen, and relay endpoints."""
        outer = [endpoint_of(self.rig.far), endpoint_of(self.rig.far6)]
        return data.draw(st.sampled_from([*outer, *outer, *map(relay_endpoint, EVERYBODY)]))

    # --- SAs ------------------------------------------------------------------------------------

    @rule(host=hosts, kind=kinds)
    def install(self, host: bytes, kind: str) -> None:
        """A host has a new SA towards us."""
        self.spi += 1
        self.inbound.append(
            (OutboundSa(params_of(kind, self.spi, host, AGENT, inbound=False)), host)
        )
        theirs = params_of(kind, self.spi, host, AGENT, inbound=True)
        self.change(lambda table: table.install_inbound(theirs))

    @rule(host=hosts, kind=kinds)
    def install_out(self, host: bytes, kind: str) -> None:
        """We have a new SA towards a host."""
        self.spi += 1
        self.outbound.append((self.spi, host))
        ours = params_of(kind, self.spi, AGENT, host, inbound=False)
        self.change(lambda table: table.install_outbound(ours))

    @rule(data=st.data(), kind=kinds)
    def replace_out(self, data: st.DataObject, kind: str) -> None:
        """The same SPI, for something else."""
        spi, host = data.draw(st.sampled_from(self.outbound))
        ours = params_of(kind, spi, AGENT, host, inbound=False)
        self.change(lambda table: table.install_outbound(ours))

    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        """The same SPI with another key, or of another host: what is under way fails."""
        sealing, _ = data.draw(st.sampled_from(self.inbound))
        host = data.draw(hosts)
        fresh = params_of("relay", sealing.params.spi, host, AGENT, inbound=True)
        if data.draw(st.booleans()):
            fresh = replace(fresh, key=bytes(len(fresh.key)))
        self.change(lambda table: table.install_inbound(fresh))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        spi = data.draw(st.sampled_from(self.inbound))[0].params.spi
        self.change(lambda table: table.remove_inbound(spi))

    @rule(data=st.data())
    def remove_out(self, data: st.DataObject) -> None:
        spi, _ = data.draw(st.sampled_from(self.outbound))
        self.change(lambda table: table.remove_outbound(spi))

    @rule(host=hosts)
    def register(self, host: bytes) -> None:
        """All is right for once: new relay SAs, and what is for the host is forwarded to it."""
        self.install(host, "relay")
        self.install_out(host, "relay")
        spi = self.outbound[-1][0]
        endpoint = endpoint_of(self.rig.far if host is HOST_A else self.rig.far6)
        self.change(lambda table: table.set_relay(host, spi, endpoint, True))

    # --- Ways -----------------------------------------------------------------------------------

    @rule(data=st.data(), host=everybody, forward=st.booleans())
    def set_relay(self, data: st.DataObject, host: bytes, forward: bool) -> None:
        spi = data.draw(st.sampled_from([0x7777, *(spi for spi, _ in self.outbound)]))
        endpoint = self.place(data)
        self.change(lambda table: table.set_relay(host, spi, endpoint, forward))

    @rule(host=everybody)
    def clear_relay(self, host: bytes) -> None:
        self.change(lambda table: table.clear_relay(host))

    @rule(data=st.data(), host=hosts, mtu=st.sampled_from([256, 1300, 9000]))
    def set_flow(self, data: st.DataObject, host: bytes, mtu: int) -> None:
        spi = data.draw(st.sampled_from([0x7777, *(spi for spi, _ in self.outbound)]))
        endpoint = self.place(data)
        self.change(lambda table: table.set_flow(host, spi, endpoint, mtu))

    @rule(host=hosts)
    def clear_flow(self, host: bytes) -> None:
        self.change(lambda table: table.clear_flow(host))

    @rule(limit=st.sampled_from([0, 2**40]))
    def set_limit(self, limit: int) -> None:
        self.change(lambda table: table.set_relay_limit(limit))

    # --- Packets --------------------------------------------------------------------------------

    def come(self, datagram: bytes) -> None:
        self.sealed = [*self.sealed[-20:], datagram]
        self.both.came(datagram)
        self.settle()

    @rule(
        data=st.data(),
        source=everybody,
        receiver=everybody,
        hop=hops,
        probe=st.booleans(),
        count=st.integers(1, 4),
    )
    def nested_comes(
        self,
        data: st.DataObject,
        source: bytes,
        receiver: bytes,
        hop: int,
        probe: bool,
        count: int,
    ) -> None:
        """A few at once, so that they leave as a run; mostly as an honest host does it."""
        relays = [one for one in self.inbound if relay.is_relay(one[0].params)]
        sealing, sender = data.draw(st.sampled_from(relays))
        if data.draw(st.integers(0, 3)):
            sealing, sender = relays[-1]
            source, receiver = sender, data.draw(hosts)
        for _ in range(count):
            packet = self.inside(data, source, receiver)
            packet = with_hop_limit(packet, hop)
            if probe:
                packet = as_probe(packet)
            cut = data.draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 41]))
            datagram = sealing.seal(packet[: len(packet) - cut], 41)
            self.sealed = [*self.sealed[-20:], datagram]
            self.both.came(datagram)
        self.settle()

    def inside(self, data: st.DataObject, source: bytes, target: bytes) -> bytes:
        kind = data.draw(st.sampled_from(["ike", "esp", "esp", "any"]))
        if kind == "ike":
            message = data.draw(st.sampled_from([IKE, FIRST_WORD, IKE[:27]]))
            return nested_ike(source, target, message)
        if kind == "any":
            return nested(
                bytes(data.draw(lengths)), data.draw(st.sampled_from([50, 17, 59, 44, 0]))
            )
        return nested(self.esp(data), 50, source, target)

    def esp(self, data: st.DataObject) -> bytes:
        """An ESP packet for us, of any of the SAs."""
        sealing, sender = data.draw(st.sampled_from(self.inbound))
        upper = data.draw(st.sampled_from([6, 17, 135]))
        body = MESSAGE if upper == 135 else bytes(data.draw(lengths))
        if sealing.params.mode is Mode.TRANSPORT:
            return sealing.seal(body, upper)
        return sealing.seal(ipv6(sender, AGENT, body, upper))

    @rule(data=st.data())
    def esp_comes(self, data: st.DataObject) -> None:
        self.come(self.esp(data))

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """Replayed, whole or broken."""
        datagram = data.draw(st.sampled_from(self.sealed))
        place = data.draw(st.integers(-1, len(datagram) - 1))
        if place >= 0:
            datagram = datagram[:place] + bytes([datagram[place] ^ 4]) + datagram[place + 1 :]
        self.come(datagram)

    @rule(data=st.data(), message=st.sampled_from([IKE, bytes(4) + IKE, b"\xff"]))
    def say(self, data: st.DataObject, message: bytes) -> None:
        endpoint = self.place(data)
        self.rig.pump.send(message, endpoint)
        self.both.outputs += self.both.law.send(message, endpoint, 1.0)
        self.settle()

    @rule(data=st.data(), whole=st.booleans())
    def say_nothing(self, data: st.DataObject, whole: bool) -> None:
        spi, _ = data.draw(st.sampled_from(self.outbound))
        endpoint = self.place(data)
        self.rig.pump.send_dummy(spi, endpoint, b"", whole)
        self.both.outputs += self.both.law.dummy(spi, endpoint, b"", whole, 1.0)
        self.settle()

    @rule(data=st.data(), host=everybody)
    def say_inside(self, data: st.DataObject, host: bytes) -> None:
        spi, _ = data.draw(st.sampled_from(self.outbound))
        endpoint, packet = self.place(data), ipv6(AGENT, host, MESSAGE, 135)
        self.rig.pump.send_inner(spi, endpoint, packet)
        self.both.outputs += self.both.law.send_inner(spi, endpoint, packet, 1.0)
        self.settle()

    @rule(host=hosts, length=lengths)
    def application_sends(self, host: bytes, length: int) -> None:
        packet = ipv6(AGENT, host, bytes(length), 6)
        self.rig.pump.inject(packet)
        self.both.outputs += self.both.law.outbound(packet, 1.0)
        self.settle()


AnyOrder.TestCase.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, print_blob=True
)
TestAnyOrder = AnyOrder.TestCase
