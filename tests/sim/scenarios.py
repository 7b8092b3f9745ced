"""Random scenarios: a seed makes two homes, links, and a life full of changes; then all is well.

``python -m tests.sim.scenarios --seeds 5000`` runs as many (``make scenarios``); ``--seed 17``
runs one again, exactly, and tells what happened. What must hold in each is :func:`play`'s to say.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count

from tests.sim.places import Standing, weather
from tests.sim.watch import Proofs
from tests.sim.world import Config, SimHost, World, numbers
from tunnel.commands import NotReached
from tunnel.io.lab.scenario import Deed, Event, Kind, Links, Network, Scenario, Who
from tunnel.settings import HomeAgentSettings, NodeSettings

PATIENCE = 120.0
"""Seconds from the last change until both hear each other. An IKE SA is found dead after a minute
at most (``IkeSettings``), and the pause between two attempts grows to half a minute."""
GATEWAY = ("198.51.100.7", 4500)
TOLD = 180.0  # seconds until somebody who asks is told that there is no path

_KINDS: tuple[Kind, ...] = (
    *("public", "public", "mapped", "mapped", "full-cone", "restricted", "restricted"),
    *("symmetric", "double", "cgnat", "blocked"),
)
_TIMEOUTS = (0.0, 0.0, 30.0, 60.0, 120.0)


@dataclass(frozen=True)
class Story:
    """A scenario, and what the applications and an attacker do meanwhile. ``pace``: seconds
    between two packets of an application; ``forged``: see :class:`tests.sim.watch.Proofs`;
    ``relay``: whether a third host, with a public address, is the account's home agent."""

    seed: int
    scenario: Scenario
    pace: float
    forged: float
    relay: bool = False

    @property
    def has_path(self) -> bool:
        """Whether the two can hear each other in the end: directly, or where both reach the home
        agent."""
        if not self.relay:
            return self.scenario.has_path
        return "blocked" not in {self.scenario.at_last(who).kind for who in ("left", "right")}


@dataclass(frozen=True)
class Outcome:
    """How it ended: seconds from the last change until both heard each other, or ``None`` where
    there is no path."""

    path: bool
    converged: float | None
    data: int  # datagrams of which it was seen that they went where they may
    forged: int
    tested: int  # address tests (AOTC, AOTR) that proved an endpoint


def story(seed: int, *, relay: bool = False) -> Story:
    """The story of a seed; with a home agent, it is the same but for that."""
    pick = random.Random(f"story {seed}")

    def network() -> Network:
        return Network(pick.choice(_KINDS), pick.choice(_TIMEOUTS))

    links = Links(
        delay_ms=pick.choice((1.0, 10.0, 40.0, 120.0)),
        jitter_ms=pick.choice((0.0, 0.0, 10.0, 60.0)),
        loss=pick.choice((0.0, 0.0, 2.0, 8.0)),
        duplicate=pick.choice((0.0, 0.0, 3.0)),
    )
    left, right = network(), network()
    events = tuple(_events(pick))
    return Story(
        seed,
        Scenario(f"of seed {seed}", left, right, links, events),
        pace=pick.choice((0.25, 1.0, 5.0, 45.0)),
        forged=pick.choice((0.0, 0.0, 0.2)),
        relay=relay,
    )


def _events(pick: random.Random) -> Iterator[Event]:
    """Up to six changes, some of them at the same moment; in the end the rendezvous is there."""
    at, deeds = 0.0, ("move", "move", "reboot", "restart", "away", "both")
    away = False
    for _ in range(pick.randint(1, 6)):
        at += pick.choice((0.0, 0.05, 1.0, 5.0, 40.0)) * pick.uniform(0.5, 1.5)
        deed = pick.choice(deeds)
        if deed == "away":
            yield Event("back" if away else "away", at)
            away = not away
            continue
        whos: tuple[Who, ...] = ("left", "right")
        for who in whos if deed == "both" else (pick.choice(whos),):
            name: Deed = "move" if deed == "both" else deed
            kind = pick.choice(_KINDS) if name == "move" else None
            timeout = pick.choice(_TIMEOUTS) if name == "move" else 0.0
            yield Event(name, at, who, kind, timeout)
    if away:
        yield Event("back", at + pick.uniform(0.0, 60.0))


class Play:
    """One story, in a world of its own."""

    def __init__(self, told: Story) -> None:
        self.story, scenario = told, told.scenario
        self.world = World(told.seed, weather(scenario.links))
        self.proofs = Proofs(self.world, forged=told.forged)
        if told.relay:
            settings = NodeSettings(home_agent=HomeAgentSettings())
            SimHost(self.world, Config("gateway", GATEWAY, settings=settings)).start()
        self.sides: dict[Who, Standing] = {
            "left": Standing(self.world, "left", scenario.left),
            "right": Standing(self.world, "right", scenario.right),
        }
        self._numbers = count(1)
        self._pick = random.Random(f"life {told.seed}")
        self._ended = False

    def run(self) -> Outcome:
        """The whole story; an AssertionError says what did not hold."""
        world, scenario = self.world, self.story.scenario
        world.run(15)
        self._talk("left")
        self._talk("right")
        world.run(15)
        began = world.now
        for event in scenario.in_order():
            world.run(max(0.0, began + event.at - world.now))
            self._do(event)
        changed = world.now
        self.proofs.forged = 0.0
        if not self.story.has_path:
            self._is_told()
            return self._outcome(None)
        met = world.run(PATIENCE, self._both_hear(changed))
        assert met, f"seed {self.story.seed}: no word after {PATIENCE:.0f} s: {self._state()}"
        return self._outcome(world.now - changed)

    # --- What happens -----------------------------------------------------------------------

    def _do(self, event: Event) -> None:
        if event.do in ("away", "back"):
            self.world.set_zone(event.do == "back")
            return
        assert event.who is not None
        side = self.sides[event.who]
        if event.do == "move":
            assert event.kind is not None
            side.move(Network(event.kind, event.timeout))
        elif event.do == "reboot":
            side.reboot(self._pick.uniform(0.5, 5.0))
        else:
            side.restart()

    def _talk(self, who: Who) -> None:
        """An application that says something from time to time, and asks for the name as long as
        there is no answer."""
        if self._ended:
            return
        ours, theirs = self.sides[who].host, self._other(who).host
        if theirs.host_id in ours.routes:
            ours.send(theirs.host_id, next(self._numbers))
        else:
            ours.reach(theirs.config.label)
        wait = self.story.pace * self._pick.uniform(0.5, 1.5)
        self.world.at(self.world.now + wait, lambda: self._talk(who))

    def _other(self, who: Who) -> Standing:
        return self.sides["right" if who == "left" else "left"]

    # --- What must hold ---------------------------------------------------------------------

    def _both_hear(self, since: float) -> object:
        """Whether what each sends now arrives: an application sends once a second."""
        world = self.world
        state = {"next": since}
        sent: dict[Who, set[int]] = {"left": set(), "right": set()}

        def heard() -> bool:
            if world.now >= state["next"]:
                state["next"] = world.now + 1.0
                for who, mine in sent.items():
                    ours, theirs = self.sides[who].host, self._other(who).host
                    mine.add(number := next(self._numbers))
                    if theirs.host_id not in ours.routes:
                        ours.reach(theirs.config.label)
                    ours.send(theirs.host_id, number)
            return all(
                not mine.isdisjoint(numbers(self._other(who).host.received[-50:]))
                for who, mine in sent.items()
            )

        return heard

    def _is_told(self) -> None:
        """There is no path: who asks is told so, in words."""
        ours = self.sides["left"].host
        end = self.world.now + TOLD
        while self.world.now < end:
            ticket = ours.reach("right")
            self.world.run(20, lambda: ticket in ours.answers)  # noqa: B023 - used up by then
            answer = ours.answers.get(ticket)
            if isinstance(answer, NotReached):
                assert answer.reason, f"seed {self.story.seed}: no reason"
                return
            self.world.run(5)
        raise AssertionError(f"seed {self.story.seed}: nobody says that there is no path")

    def _outcome(self, converged: float | None) -> Outcome:
        self._ended = True
        proofs = self.proofs
        seen = proofs.data, proofs.copies, proofs.tested
        return Outcome(converged is not None, converged, *seen)

    def _state(self) -> str:
        return "; ".join(f"{who}: {_words(one.host)}" for who, one in self.sides.items())


def _words(host: SimHost) -> str:
    status = host.node.status(host.world.now)
    peers = [(peer["state"], peer["endpoint"], peer.get("reason")) for peer in status["peers"]]
    return f"at {host.endpoint}, published {host.node._core.endpoints}, peers {peers}"


def play(seed: int, *, relay: bool = False) -> Outcome:
    """Runs the story of a seed.

    AssertionError if one of these does not hold: no datagram shows anything of the inside
    (:meth:`World.send`); no data goes to an endpoint that was not proven
    (:class:`tests.sim.watch.Proofs`); where a path exists (``Scenario.has_path``), both hear each
    other within :data:`PATIENCE`; where there is none, whoever asks is told why. With ``relay``
    there is a home agent, so that there is a path wherever UDP gets out.
    """
    return Play(story(seed, relay=relay)).run()


def _try(relay: bool, seed: int) -> tuple[int, Outcome | None, str]:
    try:
        return seed, play(seed, relay=relay), ""
    except AssertionError as error:
        return seed, None, str(error) or repr(error)


# --- The command ------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Many seeds, or one again."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.scenarios", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, and what happened in it")
    parser.add_argument("--relay", action="store_true", help="with a home agent")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _tell(options.seed, relay=options.relay)
    began, bad, slow = time.monotonic(), 0, []
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = range(options.first, options.first + options.seeds)
        for seed, outcome, problem in pool.map(partial(_try, options.relay), seeds, chunksize=8):
            if seed % 250 == 249:
                print(f"up to seed {seed}: {bad} failed", file=sys.stderr, flush=True)
            if outcome is None:
                bad += 1
                print(f"seed {seed}: {problem}", flush=True)
                continue
            counts["with a path" if outcome.path else "without"] += 1
            counts["data seen"] += outcome.data
            counts["forged"] += outcome.forged
            counts["address tests"] += outcome.tested
            if outcome.converged is not None:
                slow.append((outcome.converged, seed))
    slow.sort()
    print(
        f"{options.seeds} seeds in {time.monotonic() - began:.0f} s, {bad} failed; {dict(counts)}"
    )
    if slow:
        middle = slow[len(slow) // 2][0]
        late = slow[int(len(slow) * 0.99)][0]
        print(f"until both heard each other: median {middle:.2f} s, 99 % within {late:.1f} s")
        print("the slowest:", ", ".join(f"{at:.1f} s (seed {seed})" for at, seed in slow[-5:]))
    return 1 if bad else 0


def _tell(seed: int, *, relay: bool) -> int:
    told = story(seed, relay=relay)
    scenario = told.scenario
    print(f"seed {seed}: pace {told.pace} s, forged {told.forged}; {scenario.links}")
    print(f"left {scenario.left}, right {scenario.right}; a path in the end: {told.has_path}")
    acted = Play(told)
    problem = ""
    try:
        outcome: Outcome | None = acted.run()
    except AssertionError as error:
        outcome, problem = None, str(error)
    lines = [(one.at + 1030.0, f"-- {one}") for one in scenario.in_order()]
    for who, side in acted.sides.items():
        lines += [(at, f"{who}: {text}") for at, _, text in side.host.logs]
    for at, text in sorted(lines, key=lambda line: line[0]):
        print(f"{at:10.3f}  {text}")
    print(problem or outcome)
    return 0 if outcome is not None else 1


if __name__ == "__main__":
    sys.exit(main())
