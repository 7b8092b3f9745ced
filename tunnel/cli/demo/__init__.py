"""``autotunnel demo``: the whole product on a network of namespaces, told step by step.

Real processes on a real network (``stage.py`` has its picture): nothing in here knows a shortcut
into the hosts; all goes through the command line and unmodified programs (``scenes.py``).
"""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape

from tunnel.cli.demo.relayed import Relayed
from tunnel.cli.demo.scenes import Demo
from tunnel.cli.demo.story import StepFailedError, Story
from tunnel.io.lab import Lab, LabError, missing

PROGRAMS = (
    *("tcpdump", "curl", "ping", "ss", "getent", "python3"),
    *("tc", "nft", "miniupnpd", "conntrack"),
)


def run(as_json: bool, quick: bool) -> int:
    """Run the demo; the exit code. Progress goes to stderr; with ``as_json`` stdout gets
    ``autotunnel/demo/v1``, also when a step fails. ``quick``: no minute of waiting."""
    console = Console(stderr=True)
    reason = missing(PROGRAMS)
    if reason is not None:
        console.print(f"The demo cannot run here: {escape(reason)}.", soft_wrap=True)
        if as_json:
            print(json.dumps({**Story(console).as_dict(), "error": reason}))
        return 1
    story = Story(console)
    code = _tell(story, quick)
    if as_json:
        print(json.dumps(story.as_dict(), indent=2))
    return code


def _tell(story: Story, quick: bool) -> int:
    try:
        with Lab() as lab:
            _play(story, Demo(lab), quick)
    except (LabError, StepFailedError):
        return 1  # the story has told it
    except (KeyboardInterrupt, SystemExit):  # the latter: SIGTERM and SIGHUP to a lab
        story.console.print("Interrupted; everything has been taken away.")
        return 1
    total = sum(step.seconds for step in story.steps)
    story.console.print(f"All {len(story.steps)} steps are ok, after {total:.1f} s.")
    return 0


def _play(story: Story, demo: Demo, quick: bool) -> None:
    relayed = Relayed(demo, quick)
    scenes = (
        ("network", "building the network", demo.network),
        ("account", "making the account", demo.account),
        ("invitation", "bringing in the second host", demo.invitation),
        ("up", "starting both hosts", demo.up),
        ("discovery", "looking up a name", demo.discovery),
        ("file", "moving a file", demo.file),
        ("rekey", "moving it again while the keys change", demo.rekey),
        ("ping", "pinging", demo.ping),
        ("push", "changing a host's address", demo.push),
        ("punch", "reaching a host whose router opens nothing", demo.punch),
        ("move", "moving one host in mid-transfer", demo.move),
        ("move-desk", "moving the other one", demo.move_desk),
        ("reboot", "restarting a router", demo.reboot),
        ("agent", "making a host a home agent", relayed.agent),
        ("relay", "starting where no direct path can be", relayed.relay),
        ("direct", "moving to where there is one", relayed.direct),
        ("cut", "cutting it", relayed.cut),
        ("alone", "killing rendezvous and home agent", relayed.alone),
        ("sealed", "searching the home agent's capture", relayed.sealed),
        ("recovery", "killing and restarting a host", demo.recovery),
        ("shutdown", "taking both hosts down", demo.shutdown),
        ("secrecy", "searching the capture", demo.secrecy),
        ("eavesdropper", "proving that the search can fail", demo.eavesdropper),
    )
    try:
        for name, doing, scene in scenes:
            with story.step(name, doing) as step:
                scene(step)
    except (LabError, StepFailedError):
        for machine, said in (demo.logs() | relayed.log()).items():
            story.console.print(f"--- {machine} said last:", markup=False)
            story.console.print(said, markup=False, highlight=False, soft_wrap=True)
        raise
