"""One TCP connection lives through moves of both hosts and changes of routers, all behind NATs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator

import pytest

from tunnel.cli.demo import stage as place
from tunnel.cli.demo.scenes import DOMAIN, find_token
from tunnel.io.lab import HostMachine, Lab, RendezvousMachine, missing, wait_until

pytestmark = pytest.mark.root

PATIENCE = 60.0
ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 7777), family=socket.AF_INET6)
print("listening", flush=True)
one, _ = server.accept()
while data := one.recv(4096):
    one.sendall(data)
"""
TALK = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 7777)) as one:
    lines = one.makefile("rw")
    for number in range(1_000_000):
        print(number, file=lines, flush=True)
        assert lines.readline() == f"{number}\\n"
        print(number, flush=True)
        time.sleep(0.02)
"""


class Roamers:
    """A laptop behind routers that open nothing, a desk behind ones that do; they talk."""

    def __init__(self, lab: Lab) -> None:
        self.stage = stage = place.build(lab)
        self.desk, self.laptop = HostMachine(stage.desk), HostMachine(stage.laptop)
        rendezvous = RendezvousMachine(stage.rendezvous)
        where = ("--rendezvous", place.RENDEZVOUS, "--name", "desk", "-c", str(self.desk.config))
        self.desk.cli("init", DOMAIN, "--auth", "psk", *where)
        rendezvous.adopt(self.desk)
        rendezvous.serve()
        token = find_token(self._ask_for_invitation())
        self.laptop.cli("join", token, "--name", "laptop", "-c", str(self.laptop.config))
        for host in (self.desk, self.laptop):
            host.settle()
            host.change("resolver", {"enabled": False})
            host.begin_up()
        for host in (self.desk, self.laptop):
            host.wait_until_up()
        desk_id = str(self.desk.status()["host"]["id"])
        self.laptop.cli("lookup", "desk", "-c", str(self.laptop.config))
        command = (sys.executable, "-c")
        stage.desk.start(*command, ECHO, desk_id, name="echo").wait_for("listening", PATIENCE)
        self.talk = stage.laptop.start(*command, TALK, desk_id, name="talk")
        self.laptop_at, self.desk_at = stage.home, stage.study
        self.addresses = (f"192.0.1.{number}" for number in itertools.count(30))
        self.goes_on()
        peer = self.laptop.peer("desk")
        assert peer is not None
        self.spi = peer["spi_in"]

    def _ask_for_invitation(self) -> str:
        return self.desk.cli("invite", "--json", "-c", str(self.desk.config)).stdout

    def goes_on(self) -> None:
        """The very same connection carries more than was under way."""
        before = self._count()

        def more() -> bool:
            assert self.talk.running, self.talk.output()
            return self._count() > before + 20

        wait_until(more, PATIENCE, "the connection goes on")

    def _count(self) -> int:
        return self.talk.output().count("\n")

    def move_laptop(self) -> None:
        stage, leaving = self.stage, self.laptop_at
        self.laptop_at = stage.cafe if leaving is stage.home else stage.home
        place.enter(stage.laptop, self.laptop_at, leaving)

    def move_desk(self) -> None:
        stage, leaving = self.stage, self.desk_at
        self.desk_at = stage.office if leaving is stage.study else stage.study
        place.enter(stage.desk, self.desk_at, leaving)

    def move_both(self) -> None:
        self.move_laptop()
        self.move_desk()

    def renumber_desk(self) -> None:
        self.desk_at.renumber(next(self.addresses))

    def renumber_laptop(self) -> None:
        self.laptop_at.renumber(next(self.addresses))

    def reboot(self) -> None:
        self.desk_at.reboot(next(self.addresses))


@pytest.fixture(scope="module")
def roamers() -> Iterator[Roamers]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        yield Roamers(lab)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(Roamers.move_laptop, id="a host moves"),
        pytest.param(Roamers.move_desk, id="its peer moves, whose packets our router keeps out"),
        pytest.param(Roamers.move_both, id="both move at once"),
        pytest.param(Roamers.renumber_desk, id="a router announces another address"),
        pytest.param(Roamers.renumber_laptop, id="a router has another address and says nothing"),
        pytest.param(Roamers.reboot, id="a router restarts with another address"),
    ],
)
def test_a_connection_survives(roamers: Roamers, event: Callable[[Roamers], None]) -> None:
    event(roamers)
    roamers.goes_on()
    for host, where in ((roamers.desk, roamers.desk_at), (roamers.laptop, roamers.laptop_at)):
        wait_until(
            lambda host=host, where=where: str(host.status()["host"]["endpoint"]).startswith(
                f"{where.outside}:"
            ),
            PATIENCE,
            f"{host.machine.role} publishes {where.outside}",
        )


def test_endpoints_moved_and_the_sa_stayed(roamers: Roamers) -> None:
    peer = roamers.laptop.peer("desk")
    assert peer is not None
    assert peer["spi_in"] == roamers.spi
    assert peer["endpoint"] == f"{roamers.desk_at.outside}:4500"
