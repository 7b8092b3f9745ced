"""Real paths that are narrower than both hosts think, with all ICMP about it dropped (RFC 8899)."""

from __future__ import annotations

import sys

import pytest

from tests.namespaces.narrow import IDS, build
from tunnel.io.lab import Lab, wait_until

pytestmark = pytest.mark.root

ENGINES = ["native", "reference"]

# What a UDP application sees: two sends of the size argv[2], and what the kernel says of them.
UDP_APP = """
import errno, socket, sys, time
app = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
app.setsockopt(socket.IPPROTO_IPV6, 23, 2)  # IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO
app.connect((sys.argv[1], 9))
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    try:
        app.send(bytes(int(sys.argv[2])))
    except OSError as problem:
        if problem.errno == errno.ECONNREFUSED:
            continue  # it arrived: nobody listens there
        print(errno.errorcode[problem.errno], app.getsockopt(socket.IPPROTO_IPV6, 24))
        break
    time.sleep(0.05)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_applications_get_the_right_size(lab: Lab, engine: str) -> None:
    """1400 - 20 (IPv4) - 8 (UDP) - 32 (ESP) - 2 (its trailer) = 1338."""
    narrow = build(lab, link=1400, engine=engine)
    narrow.ping()
    narrow.knows(1338, "complete")
    said = narrow.ping(1339, check=False)
    assert "mtu=1338" in said or "mtu: 1338" in said or "mtu = 1338" in said, said
    narrow.ping(1338, count=3)
    left = narrow.hosts["left"].machine
    left.ip("-6", "route", "flush", "cache")
    app = (sys.executable, "-c", UDP_APP, IDS["right"])
    assert left.run(*app, "1291", timeout=90).stdout.split() == ["EMSGSIZE", "1338"]
    narrow.transfer(3_000_000)


@pytest.mark.parametrize(
    ("engine", "family", "mtu"),
    [("native", 4, 1238), ("native", 6, 1218), ("reference", 6, 1218)],
)
def test_a_black_hole_of_1300_octets_is_survived(
    lab: Lab, engine: str, family: int, mtu: int
) -> None:
    """Not even 1,280 octets fit: TCP is cut smaller where we cut it, the rest is split."""
    narrow = build(lab, link=1300, family=family, engine=engine)
    narrow.ping(1280)
    narrow.transfer(5_000_000)
    narrow.knows(mtu, "error")
    narrow.ping(1280, count=3)
    assert "mtu" in narrow.ping(1281, check=False)
    narrow.transfer(5_000_000)


def test_a_link_of_1200_octets_works(lab: Lab) -> None:
    narrow = build(lab, link=1200)
    narrow.ping(1280)
    narrow.knows(1138, "error")
    narrow.ping(1280, count=3)
    narrow.transfer(3_000_000)


def test_a_firewall_that_drops_fragments_is_survived(lab: Lab) -> None:
    """TCP is cut to what the path takes whole, and the rest is split before it is sealed."""
    narrow = build(lab, link=1300)
    narrow.drop_fragments()
    narrow.ping()
    narrow.knows(1238, "error")
    narrow.ping(1280, count=3)
    narrow.transfer(3_000_000)


@pytest.mark.parametrize("family", [4, 6])
def test_a_path_that_becomes_narrow_in_the_middle_of_a_transfer(lab: Lab, family: int) -> None:
    narrow = build(lab, link=1500, family=family, mtu='"auto"')
    narrow.ping()
    narrow.knows(1438 if family == 4 else 1418, "complete")
    narrow.set_link(1380)
    narrow.transfer(5_000_000)
    expected = 1318 if family == 4 else 1298
    narrow.ping(1280)
    narrow.knows(expected, "complete", "right")  # who sends is who must know
    wait_until(lambda: "1 received" in narrow.ping(1280), 60, "small packets go on")
