"""``explain`` beside real hosts, and a recording of one that is played again offline."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.homes import Home, Homes
from tunnel.io.lab import Lab, missing, wait_until

pytestmark = pytest.mark.root

PATIENCE = 90.0


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """One host whose router opens a port, and one that is recorded behind one that does not."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, "mapped", "restricted")
        made.of("mapped").host.begin_up()
        made.of("restricted").host.begin_up("--record", str(recording(made)))
        for home in made.homes:
            home.host.wait_until_up()
        yield made


def recording(homes: Homes) -> Path:
    return homes.of("restricted").host.machine.folder / "a.recording"


def explain(home: Home, *arguments: str) -> dict[str, Any]:
    done = home.host.cli("explain", *arguments, "--json", "-c", str(home.host.config))
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["schema"] == "autotunnel/explain/v1"
    return facts


def test_a_path_is_explained_and_so_is_its_recording(homes: Homes) -> None:
    mapped, restricted = homes.of("mapped"), homes.of("restricted")

    def pinged() -> bool:
        config = str(restricted.host.config)
        done = restricted.host.cli("ping", mapped.label, "-n", "1", "-c", config, check=False)
        return done.returncode == 0

    wait_until(pinged, PATIENCE, "the mapped host answers")
    now = explain(restricted, mapped.label)
    kinds = {event["what"] for event in now["events"]}
    assert {"records", "wanted", "candidate", "path", "network", "outside"} <= kinds
    assert now["path"]["kind"] == "direct"
    assert now["path"]["endpoint"] == f"{mapped.outer}:4500"
    theirs = explain(mapped, restricted.label)
    assert theirs["path"]["endpoint"].startswith(f"{restricted.outer}:")
    opened = [event["why"] for event in theirs["events"] if event["what"] == "mapping"]
    assert any(why.startswith(f"it opens {mapped.outer}:4500 for") for why in opened), opened

    file, config = recording(homes), str(restricted.host.config)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    restricted.host.down()
    done = restricted.host.cli(
        *("explain", mapped.label, "--replay", str(file), "--json", "-c", config)
    )
    then = json.loads(done.stdout)
    assert then["replay"]["end"] == "the host ended"
    assert then["replay"]["calls"] > 20
    before = [event["why"] for event in now["events"] if event["about"] == "peer"]
    again = [event["why"] for event in then["events"] if event["about"] == "peer"]
    assert again[: len(before)] == before

    early = explain(restricted, mapped.label, "--replay", str(file), "--until", "1")
    assert early["replay"]["calls"] < then["replay"]["calls"]
    octets = bytearray(file.read_bytes())
    octets[-1] ^= 1
    file.write_bytes(octets)
    wrong = restricted.host.cli(
        *("explain", mapped.label, "--replay", str(file), "-c", config), check=False
    )
    assert wrong.returncode == 1
    assert "is damaged" in wrong.stderr
