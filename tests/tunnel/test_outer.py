"""The MTU that a device gets by itself: what our own links take whole."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fastpath.reference.esp import OutboundSa
from fastpath.types import Suite
from tests.fastpath.support import SUITES, params
from tunnel.config import HostConfig, load_host
from tunnel.io import outer
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
