"""The scenes with a home agent: reached where no direct path can be, then direct, then not.

All in one file transfer: the laptop fetches from the desk while the path between them changes.
"""

from __future__ import annotations

import time
from typing import Any

from tunnel.cli.demo import stage as place
from tunnel.cli.demo.roaming import PATIENCE, Outage, Transfer, narrow_lines, widen_lines
from tunnel.cli.demo.scenes import (
    DESK,
    DOMAIN,
    FILE_NAME,
    HTTP_PORT,
    LAPTOP,
    Demo,
    find_token,
    sha256_of,
)
from tunnel.cli.demo.story import Step, StepFailedError
from tunnel.io.lab import HostMachine, wait_until

AGENT = "garden-agent"
MBIT = 3  # so that the file is on its way for as long as the scenes take
ALONE_SECONDS = 60.0
ALONE_QUICKLY = 5.0
CUT = """
table ip cut {{
  chain way {{
    type filter hook forward priority -10
    ip saddr {0} drop
    ip daddr {0} drop
  }}
}}
"""


class Relayed:
    """What a home agent is for; ``demo`` has the hosts and the file. ``quick``: what is only
    waiting takes seconds instead of a minute."""

    def __init__(self, demo: Demo, quick: bool) -> None:
        self._demo = demo
        self._alone = ALONE_QUICKLY if quick else ALONE_SECONDS

    def agent(self, step: Step) -> None:
        """A third host of the account, with a public address, relays for the others."""
        demo = self._demo
        self._agent = agent = HostMachine(demo.stage.agent)
        token = find_token(demo.desk.cli("invite", "--json", "-c", str(demo.desk.config)).stdout)
        agent.cli("join", token, "--name", AGENT, "-c", str(agent.config))
        agent.settle(place.STUB)
        agent.change("home_agent", {})
        agent.up()
        self._capture = demo.lab.capture(demo.stage.agent, "any", "agent")
        wait_until(self._relays, PATIENCE, "it relays for both")
        step.tell(f"{AGENT}, a third host, relays for the other two")

    def relay(self, step: Step) -> None:
        """Both hosts start where no direct path can be: by the home agent."""
        demo, stage = self._demo, self._demo.stage
        for host in (demo.laptop, demo.desk):
            host.down()
        place.enter(stage.laptop, stage.train, stage.cafe)
        place.enter(stage.desk, stage.cabin, stage.office)
        demo.up_both()
        wait_until(self._relays, PATIENCE, "it relays for both")
        started = time.monotonic()
        demo.laptop.cli("ping", DESK, "-n", "1", "-c", str(demo.laptop.config))
        met_ms = round((time.monotonic() - started) * 1000, 1)
        peer = self._peer()
        if peer["path"] != "relay":
            raise StepFailedError(f"the path is {peer['path']} where none but a relay can be")
        narrow_lines(stage, MBIT)
        self._file = stage.laptop.folder / "relayed.bin"
        url = f"http://{DESK}.{DOMAIN}:{HTTP_PORT}/{FILE_NAME}"
        self._transfer = Transfer(demo.lab, demo.laptop, url, HTTP_PORT, self._file)
        step.tell(
            f"{LAPTOP} on a train (symmetric NAT) reached {DESK} in a cabin (behind two NATs) "
            f"through {AGENT} after {met_ms:.0f} ms; the file is on its way",
            met_ms=met_ms,
            path=peer["path"],
            why=peer["relay_reason"],
            mtu=peer["mtu"],
        )

    def direct(self, step: Step) -> None:
        """The laptop leaves the train: now the NATs allow a direct path."""
        stage = self._demo.stage
        outage = self._transfer.through(
            lambda: place.enter(stage.laptop, stage.cafe, stage.train), lambda: self._is("direct")
        )
        self._tell(step, f"{LAPTOP} came to a cafe, whose NAT allows a direct path", outage)

    def cut(self, step: Step) -> None:
        """Somebody on the way drops what goes directly between the two."""
        stage = self._demo.stage
        rules = CUT.format(stage.cafe.outside)
        outage = self._transfer.through(
            lambda: _load(stage.cabin, rules), lambda: self._is("relay")
        )
        self._tell(step, "somebody on the way cut the direct path", outage)

    def alone(self, step: Step) -> None:
        """Direct again, and then rendezvous and home agent are gone for a while."""
        demo, stage = self._demo, self._demo.stage
        self._transfer.through(
            lambda: place.enter(stage.laptop, stage.home, stage.cafe), lambda: self._is("direct")
        )
        begun = time.time()
        for victim in (demo.rendezvous.process, self._agent.process):
            assert victim is not None
            victim.kill()
        until = begun + self._alone
        wait_until(lambda: time.time() > until, self._alone + PATIENCE, "some time passes")
        gap_ms = round(self._transfer.arrivals.longest_gap(begun) * 1000, 1)
        path = self._peer()["path"]
        demo.rendezvous.serve()
        self._agent.up()
        widen_lines(stage)
        seconds = self._transfer.finish()
        digest = sha256_of(self._file)
        if digest != sha256_of(stage.desk.folder / "web" / FILE_NAME) or path != "direct":
            raise StepFailedError(f"the file that arrived is another one, or path {path} is wrong")
        stage.cabin.router.run("nft", "delete", "table", "ip", "cut")
        step.tell(
            f"at home {LAPTOP} had a direct path again; rendezvous and home agent were killed for "
            f"{self._alone:.0f} s, and nothing stopped for more than {gap_ms:.0f} ms; the file "
            f"arrived after {seconds:.1f} s by relay and directly, SHA-256 {digest[:16]}… is right",
            alone_s=self._alone,
            longest_gap_ms=gap_ms,
            transfer_s=round(seconds, 3),
            sha256=digest,
        )

    def sealed(self, step: Step) -> None:
        """What the home agent's machine carried shows nothing."""
        self._agent.down()
        self._capture.stop()
        seen = [sighting.what for sighting in self._demo.secrets.look(self._capture.file)]
        if seen:
            raise StepFailedError(f"visible at the home agent: {'; '.join(seen)}")
        octets = self._capture.octets
        step.tell(
            f"{octets / 1024 / 1024:.0f} MiB passed the home agent's machine, on all its devices: "
            "no trace of the file, the host ids or the names",
            capture_octets=octets,
            seen=[],
        )

    def log(self) -> dict[str, str]:
        """What the home agent said last."""
        return {"agent": self._agent.log()} if hasattr(self, "_agent") else {}

    def _relays(self) -> bool:
        """Whether both hosts are registered with it."""
        asked = (host.status()["home_agents"] for host in (self._demo.desk, self._demo.laptop))
        return all(any(agent["registered"] for agent in agents) for agents in asked)

    def _peer(self) -> dict[str, Any]:
        return self._demo.peer(self._demo.laptop, DESK)

    def _is(self, path: str) -> bool:
        return bool(self._peer()["path"] == path)

    def _tell(self, step: Step, what: str, outage: Outage) -> None:
        path = self._peer()["path"]
        step.tell(
            f"{what}: the path is {path} now; nothing arrived for {outage.milliseconds:.0f} ms",
            outage_ms=outage.milliseconds,
            path=path,
        )


def _load(where: place.Place, rules: str) -> None:
    where.router.run("nft", "-f", "-", stdin=rules)
