"""``serve --home-agent`` as a person runs it; a real one stands in tests/namespaces."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import DOMAIN, Person, Served, settle
from tunnel.config import HomeAgentSection, host_from_tables, load_serve
from tunnel.io.lab.process import alive, wait_until

PATIENCE = 60.0


@pytest.fixture
def landlord(person: Person) -> Iterator[Person]:
    """Has an account, and a host whose UDP port another program holds: it can never start."""
    settle(person, "--auth", "psk")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.bind(("::", 0))
        port = taken.getsockname()[1]
        text = person.config.read_text().replace("listen = 4500", f"listen = {port}", 1)
        old = next(line for line in text.splitlines() if line.startswith("state_dir"))
        person.config.write_text(text.replace(old, f'state_dir = "{person.home}/state"'))
        yield person


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that it has started."""
    said = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in said.stdout.split()]


def test_a_host_that_cannot_start_says_why_and_the_rendezvous_serves_on(landlord: Person) -> None:
    running = Served(landlord, "--home-agent")
    assert running.process.stderr is not None
    assert running.told["schema"] == "autotunnel/serve/v1"
    assert running.told["pid"] == running.process.pid
    assert running.told["home_agent"] == f"desk.{DOMAIN}"
    said: list[str] = []
    while not said or "serves on" not in said[-1]:
        said.append(running.process.stderr.readline())
        assert said[-1], said
    assert "autotunnel up: " in said[-2]
    assert "host.listen" in said[-2]
    assert "starts it again in 5 s" in said[-1]
    shown = landlord.run("serve", "--status", "--json", "-c", str(landlord.home / "serve.toml"))
    facts = json.loads(shown.stdout)
    assert (facts["pid"], facts["home_agent"]) == (running.process.pid, f"desk.{DOMAIN}")
    running.process.send_signal(signal.SIGTERM)
    more, last = running.process.communicate(timeout=PATIENCE)
    assert (running.process.returncode, more) == (0, "")
    assert "Traceback" not in last


def test_killed_at_once_it_leaves_no_rendezvous_behind(landlord: Person) -> None:
    running = Served(landlord, "--home-agent")
    left = children(running.process)
    assert left
    running.process.kill()
    running.process.wait(PATIENCE)
    wait_until(lambda: not any(map(alive, left)) or None, PATIENCE, "its children have ended")


def test_without_its_rendezvous_it_ends_and_says_so(landlord: Person) -> None:
    running = Served(landlord, "--home-agent")
    for pid in children(running.process):
        if "cli.server" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    said = running.process.communicate(timeout=PATIENCE)[1]
    assert running.process.returncode == 1
    assert "the rendezvous ended by itself" in said
    assert "Traceback" not in said


def test_a_rendezvous_that_cannot_start_says_why_once(landlord: Person) -> None:
    first = Served(landlord, "--home-agent")
    done = landlord.run("serve", "--home-agent", "--json", "-c", str(landlord.home / "serve.toml"))
    assert done.returncode == 1
    assert "another rendezvous is running" in done.stderr
    assert done.stdout.count('"error"') == len(done.stdout.splitlines()) == 1
    first.end()


def test_an_interrupt_at_any_moment_ends_it_without_a_word_of_python(landlord: Person) -> None:
    config = str(landlord.home / "serve.toml")
    process = subprocess.Popen(
        [sys.executable, "-m", "tunnel", "serve", "--home-agent", "-c", config],
        stderr=subprocess.PIPE,
        text=True,
        cwd=landlord.home,
        env=landlord.env,
        process_group=0,
    )
    wait_until(lambda: children(process) or None, PATIENCE, "it has begun")
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)[1]
    assert "Traceback" not in said
    assert process.returncode in (0, 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"config.toml": None}, "there is no host to run as home agent"),
        ({"config.toml": ("alice.members", "bob.members")}, "serve.home_agent"),
        ({"config.toml": ("listen =", "lissten =")}, 'did you mean "listen"?'),
    ],
)
def test_a_host_that_cannot_be_one_is_refused_before_anything_starts(
    landlord: Person, change: dict[str, tuple[str, str] | None], sentence: str
) -> None:
    for file, words in change.items():
        path = landlord.home / file
        if words is None:
            path.unlink()
        else:
            path.write_text(path.read_text().replace(*words))
    done = landlord.run("serve", "--home-agent", "-c", str(landlord.home / "serve.toml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (landlord.home / "zone").exists()


def test_the_file_of_the_host_may_be_named_once_and_for_all(landlord: Person) -> None:
    serve = landlord.home / "serve.toml"
    elsewhere = landlord.home / "elsewhere" / "hub.toml"
    serve.write_text(serve.read_text().replace("[serve]", f'[serve]\nhome_agent = "{elsewhere}"'))
    assert load_serve(serve).home_agent == elsewhere
    done = landlord.run("serve", "-c", str(serve))
    assert done.returncode == 1
    assert str(elsewhere) in done.stderr


def test_a_host_becomes_one_without_a_word_in_its_file_and_keeps_what_that_says() -> None:
    tables = {"host": {"name": "hub"}, "account": {"domain": DOMAIN}}
    plain = host_from_tables(Path("config.toml"), tables)
    assert plain.home_agent is None
    assert plain.as_home_agent().home_agent == HomeAgentSection()
    told = host_from_tables(Path("config.toml"), tables | {"home_agent": {"rate_mbit": 7}})
    assert told.as_home_agent().home_agent == HomeAgentSection(rate_mbit=7)
