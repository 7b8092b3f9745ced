"""A node with a crowd of peers: the real one, each peer with a real IKE SA, child and records.

Everything runs in memory. A peer's own IKE endpoint connects, the node asks the zone who that is,
and installs the child; then the peer and the rendezvous that held its records are thrown away, so
that what stays is the node's. ``python -m bench.crowd_node --peers 10000`` prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address

from bench.crowd import resident_octets
from discovery import types as zone_types
from discovery.client import ZoneClient
from discovery.held import ZoneAccount
from discovery.io_store import SqliteStore
from discovery.types import HostRecords, TsigKey
from discovery.zone import ZoneServer
from fastpath.types import Endpoint, SaCounters
from keys import hostid
from keys.account import Account
from keys.ike import types as ike_types
from keys.ike.endpoint import IkeEndpoint
from tunnel import commands as do
from tunnel.node import Node
from tunnel.peers import Identity
from tunnel.settings import NodeSettings

DOMAIN = "crowd.members.example"
ACCOUNT = Account(DOMAIN, bytes(32))
KEY = TsigKey(ACCOUNT.tsig_name, ACCOUNT.tsig_secret)
HUB_ENDPOINT: Endpoint = ("192.0.2.1", 4500)
NOW, UNIX = 1000.0, 1_800_000_000
TURNS = 20  # of the control plane, to find what one costs


def records_of(label: str, number: int) -> HostRecords:
    """The records of host ``number``, each with its own host id, target and endpoint."""
    eui = b"\x02\x00" + number.to_bytes(6, "big")
    return HostRecords(
        label=label,
        host_id=hostid.host_id(eui, number.to_bytes(7, "big")),
        target=hostid.target_label(eui),
        endpoints=((str(ip_address(0x0A00_0000 + number)), 4500),),
    )


HUB = records_of("hub", 0)


class Crowd:
    """The node. ``limit`` peers find room."""

    def __init__(self, limit: int) -> None:
        identity = Identity(
            f"hub.{DOMAIN}", HUB.host_id, HUB.target, "hub", DOMAIN, psk=ACCOUNT.psk
        )
        self.node = Node(
            identity,
            zone=ZoneClient(domain=DOMAIN, label="hub", key=KEY, random=os.urandom),
            random=os.urandom,
            settings=NodeSettings(peers=limit),
        )
        self.installed = 0  # children
        self._server = self._rendezvous()
        self._to_peer: list[bytes] = []
        self._carry_out(self.node.zone_up(NOW, UNIX))

    def join(self, number: int) -> None:
        """One more peer: records, IKE_SA_INIT, IKE_AUTH, the question to the zone, the child."""
        records = records_of(f"host{number}", number)
        self._server = self._rendezvous()
        self._publish(records)
        name = f"{records.label}.{DOMAIN}"
        peer = IkeEndpoint(local_name=name, secret_for=lambda _: ACCOUNT.psk, random=os.urandom)
        policy = ike_types.PeerPolicy(f"hub.{DOMAIN}", records.host_id, HUB.host_id)
        todo = peer.connect(policy.name, policy, HUB_ENDPOINT, NOW)
        while todo:
            for command in todo:
                if isinstance(command, ike_types.SendIke):
                    source = records.endpoints[0]
                    self._carry_out(self.node.datagram(command.data, source, NOW, UNIX))
            answers, self._to_peer = self._to_peer, []
            todo = [one for data in answers for one in peer.receive(data, HUB_ENDPOINT, NOW)]

    def _rendezvous(self) -> ZoneServer:
        account = ZoneAccount(DOMAIN, KEY.secret, ACCOUNT.secret, ACCOUNT.invitation_key)
        return ZoneServer([account], SqliteStore(":memory:"), unix=UNIX)

    def _publish(self, records: HostRecords) -> None:
        client = ZoneClient(domain=DOMAIN, label=records.label, key=KEY, random=os.urandom)
        todo = client.transport_up(NOW, UNIX) + client.publish(records, NOW, UNIX)
        while todo:
            command = todo.pop(0)
            if isinstance(command, zone_types.SendZone):
                for answer in self._server.handle(command.wire, HUB_ENDPOINT, "tls", UNIX):
                    todo += client.receive(answer, NOW, UNIX)

    def _carry_out(self, commands: list[do.Command]) -> None:
        for command in commands:
            match command:
                case do.SendIke(data, _):
                    self._to_peer.append(data)
                case do.SendZone(wire):
                    for answer in self._server.handle(wire, HUB_ENDPOINT, "tls", UNIX):
                        self._carry_out(self.node.zone_message(answer, NOW, UNIX))
                case do.InstallInbound():
                    self.installed += 1


def measure(peers: int) -> dict[str, float]:
    """Octets that one idle peer takes in the control plane, and what the control plane does for
    all of them: each second it takes over their counters, with each event it sets a timer."""
    crowd = Crowd(peers + 1)
    crowd.join(peers + 1)  # what is made once is no peer's
    before = resident_octets()
    for number in range(1, peers + 1):
        crowd.join(number)
    if crowd.installed != peers + 1:
        raise RuntimeError(f"{crowd.installed - 1} of {peers} peers have a child")
    _activity(crowd.node)
    taken = resident_octets() - before
    return {
        "octets_per_peer": taken / peers,
        "activity_ms": _cost_ms(lambda: _activity(crowd.node)),
        "timer_ms": _cost_ms(crowd.node.next_timer),
        "advance_ms": _cost_ms(lambda: crowd.node.advance(NOW, UNIX)),
    }


def _activity(node: Node) -> None:
    inbound, outbound = (
        {spi: SaCounters(number, 0, NOW, {}) for number, spi in enumerate(spis)}
        for spis in node.spis()
    )
    node.activity(inbound, outbound, NOW, UNIX)


def _cost_ms(act: Callable[[], object]) -> float:
    """The best of some turns: nothing but disturbance makes the same work take longer."""
    best = float("inf")
    for _ in range(TURNS):
        started = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - started)
    return best * 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.crowd_node", description=__doc__)
    parser.add_argument("--peers", type=int, default=10_000)
    json.dump(measure(parser.parse_args().peers), sys.stdout)


if __name__ == "__main__":
    main()
