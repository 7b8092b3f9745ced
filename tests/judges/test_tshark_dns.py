"""tshark reads our long-lived queries and DNS Push: every message, and nothing malformed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from discovery import dso, llq, tsig
from discovery.dso import DsoMessage, Keepalive, Tlv
from discovery.llq import LlqOption
from discovery.push import Subscribe, Unsubscribe
from discovery.ways import Tell
from tests.discovery.server.helpers import ALICE, ANY, add, rr
from tests.discovery.server.subscribing import DESK, Telling, llq_query
from tests.discovery.server.test_push import NAME, Client

CLIENT, SERVER = "192.0.2.7", "203.0.113.10"
AAAA = 28
FIELDS = ("dns.id", "dns.flags.opcode", "dns.flags.response", "dns.opt.code", "dns.opt.len")
FIELDS += ("dns.resp.ttl", "dns.tsig.mac_size", "dns.dso.tlv.type", "dns.qry.name")
FIELDS += ("dns.dso.tlv.keepalive.interval", "dns.dso.tlv.retrydelay.retrydelay", "_ws.malformed")
FIELDS += ("dns.opt.data",)


def tshark(pcap: Path, packets: list[Packet]) -> list[dict[str, list[str]]]:
    """Return the :data:`FIELDS` of each packet that has any, and hold that it is well-formed."""
    program = shutil.which("tshark")
    assert program is not None, "tshark is missing: `make setup` installs it"
    wrpcap(str(pcap), packets)
    command = [program, "-r", str(pcap), "-T", "json", "-Y", "dns"]
    command += [word for name in FIELDS for word in ("-e", name)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=180)
    read: list[Any] = [packet["_source"]["layers"] for packet in json.loads(done.stdout)]
    assert not any("_ws.malformed" in layers for layers in read)
    assert (
        "Expert Info (Error"
        not in subprocess.run(
            [program, "-r", str(pcap), "-V"],
            capture_output=True,
            check=True,
            text=True,
            timeout=180,
        ).stdout
    )
    return read


def datagram(wire: bytes, *, ours: bool) -> Packet:
    if ours:
        return IP(src=SERVER, dst=CLIENT) / UDP(sport=53, dport=40000) / Raw(wire)
    return IP(src=CLIENT, dst=SERVER) / UDP(sport=40000, dport=53) / Raw(wire)


def test_tshark_reads_our_long_lived_queries(tmp_path: Path) -> None:
    zone = Telling()
    packets: list[Packet] = []

    def exchange(option: LlqOption) -> LlqOption:
        wire, _ = tsig.sign(llq_query([(DESK, "AAAA")], [option]), zone.key, zone.unix)
        (answer,) = zone.send(wire)
        packets.extend((datagram(wire, ours=False), datagram(answer, ours=True)))
        at = answer.index(b"\x00\x01\x00\x12") + 4
        return LlqOption.parse(answer[at : at + llq.OPTION_SIZE])

    challenge = exchange(LlqOption(llq.SETUP, lease=7200))
    done = exchange(LlqOption(llq.SETUP, id=challenge.id, lease=7200))
    for change in (add(DESK, "AAAA", "fd00::1"), rr(DESK, "AAAA", ANY)):
        zone.update(change)
        (event,) = zone.take()
        assert isinstance(event, Tell)
        packets.append(datagram(event.wire, ours=True))
        echo = LlqOption(llq.EVENT, id=done.id)
        identity = int.from_bytes(event.wire[:2])
        wire = llq_query([(DESK, "AAAA")], [echo], identity=identity, flags=0x8000)
        packets.append(datagram(wire, ours=False))
        assert zone.send(wire) == []
    exchange(LlqOption(llq.REFRESH, id=done.id))
    read = tshark(tmp_path / "llq.pcap", packets)
    assert len(read) == len(packets) == 10
    assert all(layers["dns.opt.code"] == ["1"] for layers in read)
    assert all(layers["dns.opt.len"] == ["18"] for layers in read)
    assert all(layers["dns.qry.name"] == [DESK] for layers in read)
    told = f"00010003{0:04x}{done.id:016x}{0:08x}"
    assert [layers["dns.opt.data"] for layers in read[4:8]] == [[told]] * 4
    events = [read[4], read[6]]
    assert [layers["dns.resp.ttl"][0] for layers in events] == ["120", "4294967295"]
    assert all(layers["dns.tsig.mac_size"] == ["32"] for layers in events)


def test_tshark_reads_our_push(tmp_path: Path) -> None:
    """As segments of a TCP connection in clear, since in TLS nobody reads it."""
    zone = Telling()
    client = Client(zone).introduce()
    packets: list[Packet] = []
    sent = {True: 1, False: 1}

    def note(wire: bytes, *, ours: bool) -> None:
        framed = len(wire).to_bytes(2) + wire
        ends = {"sport": 53, "dport": 40000} if ours else {"sport": 40000, "dport": 53}
        segment = TCP(**ends, seq=sent[ours], ack=sent[not ours], flags="PA")
        packets.append(IP(src=SERVER if ours else CLIENT, dst=CLIENT if ours else SERVER) / segment)
        packets[-1] /= Raw(framed)
        sent[ours] += len(framed)

    def exchange(message: DsoMessage) -> None:
        note(message.pack(), ours=False)
        for answer in zone.send(message.pack(), client.way):
            note(answer, ours=True)

    def pushed() -> None:
        for told in zone.take():
            assert isinstance(told, Tell)
            note(told.wire, ours=True)

    exchange(DsoMessage(1, (Keepalive(15_000, 60_000).tlv(), dso.padding_for(24, 128))))
    # Padded, as our client sends it: tshark 4.0 takes the bare response for malformed, though a
    # response "may contain no TLVs" (RFC 8490 §5.4.2).
    exchange(DsoMessage(2, (Subscribe(NAME, AAAA).tlv(), dso.padding_for(48, 128))))
    zone.update(add(DESK, "AAAA", "fd00::1"), add(f"den.{ALICE}", "AAAA", "fd00::2"))
    pushed()
    zone.update(rr(DESK, "AAAA", ANY))
    pushed()
    exchange(DsoMessage(0, (Unsubscribe(2).tlv(),)))
    exchange(DsoMessage(3, (Tlv(0x77),)))
    zone.told.push.shut_down()
    pushed()
    read = tshark(tmp_path / "push.pcap", packets)
    assert len(read) == len(packets) == 10
    assert all(layers["dns.flags.opcode"] == ["6"] for layers in read)
    kinds = [[int(kind, 0) for kind in layers.get("dns.dso.tlv.type", [])] for layers in read]
    assert kinds == [[1, 3], [1, 3], [0x40, 3], [3], [0x41], [0x41], [0x42], [0x77], [2], [2]]
    assert read[1]["dns.dso.tlv.keepalive.interval"] == ["60000"]
    assert read[8]["dns.dso.tlv.retrydelay.retrydelay"] == ["3600000"]
    assert read[9]["dns.id"] == ["0x0000"]
