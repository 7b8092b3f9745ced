"""Several children with one peer, each for its own traffic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.stage import PATIENCE, PINGS, THEIRS, Play, Stage
from tunnel.io.lab.charon import Charon

pytestmark = pytest.mark.root

ALL, PING, PORT = "everything", "protocol 58", "protocol 17 to port 9000"
OURS_TOO = "{ protocol = 58 }, { protocol = 17, peer_ports = [9000, 9000] }"
ECHOES = 7

# On charon's machine: answers so many datagrams at each of two ports.
ECHO = """
import select, socket
ports = []
for port in (9000, 9001):
    ports.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    ports[-1].bind(("::", port))
print("ready", flush=True)
while True:
    for one in select.select(ports, [], [])[0]:
        data, source = one.recvfrom(2000)
        one.sendto(data, source)
"""

ASK = """
import socket, sys
for number in range(int(sys.argv[3])):
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    one.settimeout(60)
    one.sendto(bytes(500), (sys.argv[1], int(sys.argv[2])))
    assert len(one.recv(2000)) == 500
"""


def children(play: Play) -> dict[str, dict[str, Any]]:
    """By what they are for; the newest where there are two."""
    return {child["traffic"]: child for child in play.peer()["children"]}


def settled(play: Play, *traffics: str) -> dict[str, dict[str, Any]]:
    """Waits until both ends hold these children and no other."""

    def agreed() -> bool:
        play.export_keys()
        ours = play.peer()["children"]
        pairs = {(int(one["spi_out"], 16), int(one["spi_in"], 16)) for one in ours}
        return sorted(one["traffic"] for one in ours) == sorted(traffics) and pairs == set(
            play.charon.children()
        )

    play.until(agreed, f"both ends hold {traffics}")
    play.export_keys()
    return children(play)


def packets(child: dict[str, Any]) -> tuple[int, int]:
    return child["rx_packets"], child["tx_packets"]


def check_each_carries_its_own(play: Play, pings: str, port: str) -> None:
    """Pings, datagrams to the port and to another one: each kind on its child."""
    before = children(play)
    echo = play.stage.theirs.start("python3", "-c", ECHO, name="echo")
    echo.wait_for("ready", PATIENCE)
    play.ping()
    play.ping_back()
    for number, count in ((9000, ECHOES), (9001, 2 * ECHOES)):
        play.stage.ours.run("python3", "-c", ASK, THEIRS, str(number), str(count))
    echo.stop()
    expected = dict.fromkeys(before, 0)
    expected[pings] += 2 * PINGS
    expected[port] += ECHOES
    expected[ALL] += 2 * ECHOES
    after = children(play)
    for traffic, count in expected.items():
        grown = [
            b - a for a, b in zip(packets(before[traffic]), packets(after[traffic]), strict=True)
        ]
        # A ping asks and answers; so much is sent and so much received on both ends.
        assert grown == [count, count], (traffic, before, after)


def begin(play: Play, who: str) -> None:
    """Makes all three; ``who`` asks."""
    if who == "we":
        play.reach()
    else:
        play.charon.initiate()
        for child in ("ping", "port"):
            play.charon.swanctl("--initiate", "--child", child, "--timeout", "50")
    settled(play, ALL, PING, PORT)


def spis(play: Play) -> dict[str, str]:
    return {traffic: child["spi_out"] for traffic, child in children(play).items()}


@pytest.mark.parametrize("who", ["we", "charon"])
def test_each_child_carries_its_own_and_is_rekeyed_alone(stage: Stage, who: str) -> None:
    with stage.play("children", lifetime="", children=OURS_TOO if who == "we" else "") as play:
        begin(play, who)
        check_each_carries_its_own(play, PING, PORT)
        for name, traffic in (("ping", PING), ("inner", ALL), ("port", PORT)):
            before = spis(play)
            play.charon.swanctl("--rekey", "--child", name)
            play.until(changed(play, traffic, before[traffic]), f"{traffic} is rekeyed")
            settled(play, ALL, PING, PORT)
            after = spis(play)
            assert {one for one in after if after[one] != before[one]} == {traffic}
        check_each_carries_its_own(play, PING, PORT)


def changed(play: Play, traffic: str, before: str) -> Callable[[], bool]:
    def other() -> bool:
        play.export_keys()
        return spis(play).get(traffic) not in (None, before)

    return other


def test_we_rekey_each_child_by_its_lifetime(stage: Stage) -> None:
    with stage.play("children", children=OURS_TOO, lifetime="[ike]\nchild_lifetime = 6.0") as play:
        begin(play, "we")
        before = spis(play)
        for traffic in (ALL, PING, PORT):
            play.until(changed(play, traffic, before[traffic]), f"we rekey {traffic}")
        play.ping()


@pytest.mark.parametrize("who", ["we", "charon"])
def test_each_child_is_deleted_alone(stage: Stage, who: str) -> None:
    """By charon; what it carried goes on the child for everything."""
    with stage.play("children", lifetime="", children=OURS_TOO if who == "we" else "") as play:
        begin(play, who)
        terminate(play.charon, "port")
        settled(play, ALL, PING)
        check_each_carries_its_own(play, PING, ALL)
        terminate(play.charon, "ping")
        settled(play, ALL)
        check_each_carries_its_own(play, ALL, ALL)


def terminate(charon: Charon, child: str) -> None:
    charon.swanctl("--terminate", "--child", child, "--timeout", "50")
