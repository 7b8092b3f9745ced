"""The MTU that a device gets by itself, what our own links take whole; and other ways out."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from fastpath.reference.esp import OutboundSa
from fastpath.types import Suite
from tests.fastpath.support import SUITES, params
from tunnel.config import HostConfig, load_host
from tunnel.io import outer
from tunnel.io.netlink import WayOut
from tunnel.io.sockets import mtu_towards

TEXT = """
[host]
name = "desk.example"
mtu = {mtu}
[[peer]]
name = "gateway.example"
id = "fd12:3456:789a::2"
endpoint = "198.51.100.7:4500"
psk_file = "gateway.psk"
"""


def config(folder: Path, mtu: str) -> HostConfig:
    path = folder / "config.toml"
    path.write_text(TEXT.format(mtu=mtu))
    return load_host(path)


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({4: 1500}, 1438),
        ({6: 1500}, 1418),
        ({4: 1500, 6: 1500}, 1418),
        ({4: 1492, 6: None}, 1430),
        ({4: 1200}, 1280),
        ({4: 65536}, 8938),
        ({}, 1418),
    ],
)
def test_the_narrowest_of_our_links_decides(
    links: dict[int, int], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def towards(_remote: str | None, family: int) -> int | None:
        return links.get(4 if family == socket.AF_INET else 6)

    monkeypatch.setattr(outer, "mtu_towards", towards)
    assert outer.device_mtu(config(tmp_path, '"auto"')) == expected
    assert outer.device_mtu(config(tmp_path, "1333")) == 1333


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(("headers", "inner"), [(28, 1438), (48, 1418)])
def test_a_packet_of_that_size_fills_a_link_to_four_octets(
    suite: Suite, headers: int, inner: int
) -> None:
    sealed = len(OutboundSa(params(suite)).seal(bytes(inner)))
    assert 1496 < headers + sealed <= 1500
    assert headers + len(OutboundSa(params(suite)).seal(bytes(inner + 1))) > 1500


def test_loopback_says_how_large_it_is() -> None:
    assert mtu_towards("127.0.0.1", socket.AF_INET) in (65535, 65536)


HOST_ID = IPv6Address("fd12:3456:789a::1")
ETH = WayOut(4, 2, "192.168.1.1", "192.168.1.9")
WIFI = WayOut(4, 3, "192.168.7.1", "192.168.7.9")
VPN = WayOut(4, 9, None, "10.8.0.9", tunnel=True)
ETH6 = WayOut(6, 2, "fe80::1%eth0", "2001:db8:1::9")
WIFI6 = WayOut(6, 3, "fe80::1%wlan0", "2001:db8:7::9")


@pytest.mark.parametrize(
    ("ways", "ours", "others"),
    [
        ((), (), ()),
        ((ETH,), ("192.168.1.9",), ()),
        ((ETH, WIFI), ("192.168.1.9",), ("192.168.7.9",)),
        ((ETH, WIFI), ("192.168.7.9",), ("192.168.1.9",)),  # the one that has our endpoint
        ((ETH, WIFI), ("10.0.0.9",), ("192.168.7.9",)),  # else the one that the routes prefer
        ((ETH, ETH6, WIFI6), ("192.168.1.9", "2001:db8:1::9"), ("2001:db8:7::9",)),
        ((ETH, WIFI6), ("192.168.1.9", "2001:db8:7::9"), ()),  # of each version one
        ((ETH6, WayOut(6, 2, "fe80::2%eth0", "2001:db8:2::9")), ("2001:db8:1::9",), ()),
        ((ETH6, WayOut(6, 4, None, str(HOST_ID))), ("2001:db8:1::9",), ()),  # our own device
        ((ETH6, WayOut(6, 4, None, "fe80::9")), ("2001:db8:1::9",), ()),
        ((ETH, WIFI, WIFI), ("192.168.1.9",), ("192.168.7.9",)),  # two routers there
        ((VPN, ETH, WIFI), ("10.8.0.9",), ()),  # nothing goes around a tunnel
        ((ETH, WIFI, VPN), ("192.168.1.9",), ("192.168.7.9",)),  # and none is a network
        ((VPN, ETH, ETH6, WIFI6), ("10.8.0.9", "2001:db8:1::9"), ("2001:db8:7::9",)),
    ],
)
def test_other_ways_are_those_by_other_interfaces(
    ways: tuple[WayOut, ...], ours: tuple[str, ...], others: tuple[str, ...]
) -> None:
    endpoints = tuple((host, 4500) for host in ours)
    found = outer.other_ways(ways, endpoints, HOST_ID)
    assert tuple(host for host, _ in found) == others
    assert all((way.source, way.index) in found for way in ways if way.source in others)
