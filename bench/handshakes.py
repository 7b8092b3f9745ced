"""Handshakes: how many tunnels a second can be made one after the other, and what each costs.

One handshake is IKE_SA_INIT, IKE_AUTH by pre-shared key with a CHILD_SA, and the Delete. All use
AES-GCM-128, HMAC-SHA-256 and X25519; ours once more with ML-KEM-768 after it, which charon of
Debian 12 does not have, and then with certificates (Ed25519) too, as our hosts do by default. Ours
is the IKE endpoint alone, in one process without any network, and in two processes with a UDP
socket each. charon, over the same link and without its log, also gives its SAs to its engine and
sets routes, as a whole daemon does. Processor time is that of both ends.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine, report
from bench.cost import Cost
from bench.handshake_end import IDS, NAMES, PORT, PSK, RECIPES, SUITE, End
from bench.pair import OUTER, Pair, pair
from bench.vici import Vici
from tunnel.io.lab.charon import Charon, charon_missing, psk_connection

_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1])}
_QUIET = "filelog { main { default = -1\nike = -1\ncfg = -1 } }"
CLASSIC = "x25519"

Measure = Callable[[int], tuple[float, float]]
"""Makes so many handshakes; seconds and processor seconds for all of them."""


@dataclass
class Contender:
    """One way to make a tunnel, and what it took in each round, per handshake."""

    name: str
    key_exchange: str
    measure: Measure
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def turn(self, count: int) -> None:
        """One round."""
        seconds, cpu = self.measure(count)
        self.seconds.append(seconds / count)
        self.cpu.append(cpu / count)

    def summary(self) -> dict[str, object]:
        """Medians of the rounds."""
        return {
            "contender": self.name,
            "key_exchange": self.key_exchange,
            "handshakes_per_second": round(1 / report.median(self.seconds), 1),
            "cpu_ms_per_handshake": round(1000 * report.median(self.cpu), 3),
        }


def in_process(recipe: str) -> Measure:
    """Two machines in one process: what the cryptography and the protocol cost, no more."""

    def measure(count: int) -> tuple[float, float]:
        left, right = End(0, recipe), End(1, recipe)
        started, used = time.perf_counter(), time.process_time()
        for _ in range(count):
            left.connect((OUTER[1], PORT))
            _exchange(left, right)
            assert left.up and right.up
            left.close()
            _exchange(left, right)
            assert not (left.up or right.up)
        return time.perf_counter() - started, time.process_time() - used

    return measure


def _exchange(left: End, right: End) -> None:
    while left.outbox or right.outbox:
        for one, other, source in ((left, right, OUTER[0]), (right, left, OUTER[1])):
            messages, one.outbox = one.outbox, []
            for data, _ in messages:
                other.receive(data, (source, PORT))


def over_link(ends: Pair, recipe: str) -> Measure:
    """Two processes, each with a UDP socket."""
    program = (sys.executable, "-m", "bench.handshake_end", recipe)

    def measure(count: int) -> tuple[float, float]:
        name = f"respond-{time.monotonic_ns()}"
        answer = (*program, "respond", OUTER[1])
        responder = ends.right.start(*answer, env=_ENVIRONMENT, name=name)
        responder.wait_for("ready", 60.0)
        cost = Cost((responder.pid,))
        ask = (*program, "initiate", OUTER[0], OUTER[1], str(count))
        done = ends.left.run(*ask, env=_ENVIRONMENT, timeout=120)
        theirs, _ = cost.seconds()
        responder.stop()
        seconds, ours = (float(word) for word in done.stdout.split())
        return seconds, ours + theirs

    return measure


@contextmanager
def charons(ends: Pair) -> Iterator[Measure]:
    """Two charons, driven over the control socket of one of them."""
    daemons = [
        Charon(
            end,
            psk_connection(
                local=OUTER[number],
                remote=OUTER[1 - number],
                local_id=NAMES[number],
                remote_id=NAMES[1 - number],
                local_inner=str(IDS[number]),
                remote_inner=str(IDS[1 - number]),
                psk=PSK,
                ike=f"{SUITE}-prfsha256-{CLASSIC}",
                esp=SUITE,
            ),
            inner=str(IDS[number]),
            settings=_QUIET,
        )
        for number, end in enumerate((ends.left, ends.right))
    ]
    vici = Vici(daemons[0].folder / "vici")

    def measure(count: int) -> tuple[float, float]:
        cost = Cost(tuple(daemon.process.pid for daemon in daemons))
        started = time.perf_counter()
        for _ in range(count):
            vici.ask("initiate", child="inner", timeout="20000")
            vici.ask("terminate", ike="peer", timeout="20000")
        seconds = time.perf_counter() - started
        return seconds, cost.seconds()[0]

    try:
        yield measure
    finally:
        vici.close()
        for daemon in daemons:
            daemon.process.stop()


def run(*, rounds: int, count: int, as_json: bool, save: bool) -> None:
    """``count`` handshakes per contender and round."""
    with ExitStack() as stack:
        contenders = _ours(stack.enter_context(pair("offloading")))
        reason = charon_missing()
        if reason is not None:
            report.say(f"strongSwan is left out: {reason}")
        else:
            # On a link of its own, since both want the same ports.
            measure = stack.enter_context(charons(stack.enter_context(pair("offloading"))))
            contenders.append(Contender("strongSwan charon, two processes", CLASSIC, measure))
        for number in range(rounds):
            report.say(f"round {number + 1} of {rounds}")
            for contender in contenders:
                contender.turn(count)
    body = {"rounds": rounds, "handshakes": count, "results": [c.summary() for c in contenders]}
    report.finish("handshakes", body, _table(contenders), as_json=as_json, save=save)


def _ours(ends: Pair) -> list[Contender]:
    return [
        contender
        for recipe in RECIPES
        for contender in (
            Contender("autotunnel, one process", recipe, in_process(recipe)),
            Contender("autotunnel, two processes", recipe, over_link(ends, recipe)),
        )
    ]


def _table(contenders: list[Contender]) -> str:
    rows = [
        [
            f"{one.name}, {one.key_exchange}",
            f"{1 / report.median(one.seconds):.0f}",
            f"{1000 * report.median(one.cpu):.2f}",
            f"{report.median(one.cpu) / report.median(contenders[-1].cpu):.2f}",
        ]
        for one in contenders
    ]
    head = ["contender", "handshakes/s", "CPU ms each", "× last"]
    return report.table(machine.summary(), head, rows)
