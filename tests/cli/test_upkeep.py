"""``serve --check``, ``--export`` and ``--import``, with BIND's named-checkzone as the judge."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from keys import store
from tests.cli.support import DOMAIN, Person, Served
from tests.ports import free_port
from tunnel.cli import main, upkeep
from tunnel.cli.talk import Failure
from tunnel.config import load_serve

SOON = int(time.time()) + 3600

ZONE = f"""\
$ORIGIN {DOMAIN}.
$TTL 300
@ IN SOA ns hostmaster 7 7200 900 1209600 60
@ IN NS ns
ns IN A 192.0.2.1
desk 120 IN AAAA fd01::1
     120 IN TXT "a \\"quoted\\" text" "second"
leased 60 IN AAAA fd01::2 ; lease until {SOON}
ended 60 IN AAAA fd01::3 ; lease until 5
_ssh._tcp IN SRV 0 0 22 desk
*.wild IN TXT "w"
odd IN TYPE65400 \\# 3 010203
"""


@pytest.fixture
def landlord(tmp_path: Path) -> Person:
    """Somebody who serves an account; the store is in their ``zone`` folder."""
    port = free_port()
    store.save_account_secret(tmp_path / "account.key", bytes(32))
    (tmp_path / "serve.toml").write_text(
        f'[serve]\nlisten = ["127.0.0.1:{port}"]\ntls_listen = []\nstate_dir = "zone"\n'
        f'[[serve.account]]\ndomain = "{DOMAIN}"\nsecret_file = "account.key"\n'
    )
    return Person(tmp_path)


@dataclass
class Done:
    """What a command said and how it ended."""

    returncode: int
    stdout: str
    stderr: str


class Keeper:
    """The commands of upkeep, in this process: what is tried is them, not how a program starts."""

    def __init__(self, person: Person, capsys: pytest.CaptureFixture[str]) -> None:
        self._settings = load_serve(person.home / "serve.toml")
        self._capsys = capsys

    def __call__(self, act: Callable[..., None], *arguments: object, as_json: bool = False) -> Done:
        code, said = 0, ""
        try:
            act(self._settings, *arguments, as_json)
        except Failure as failure:
            code, said = 1, str(failure)
        out, err = self._capsys.readouterr()
        return Done(code, out, err + said)

    def put(self, folder: Path, text: str, *, as_json: bool = False) -> Done:
        (folder / "given.zone").write_text(text)
        return self(upkeep.put_in, str(folder / "given.zone"), None, as_json=as_json)

    def export(self) -> str:
        done = self(upkeep.export, "-", None)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def check(self) -> Done:
        return self(upkeep.check)


@pytest.fixture
def keeper(landlord: Person, capsys: pytest.CaptureFixture[str]) -> Keeper:
    return Keeper(landlord, capsys)


def judged(text: str, folder: Path) -> str:
    """What BIND makes of a zone file: its own, sorted form of it."""
    program = shutil.which("named-compilezone") or shutil.which(
        "named-compilezone", path="/usr/sbin"
    )
    assert program, "named-compilezone is missing: apt-get install bind9-utils"
    (folder / "given").write_text(text)
    done = subprocess.run(
        [
            program,
            "-F",
            "text",
            "-s",
            "full",
            "-o",
            str(folder / "made"),
            DOMAIN,
            str(folder / "given"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return (folder / "made").read_text()


def records(text: str) -> set[tuple[str, ...]]:
    """The records of a zone file in BIND's full form, without the SOA's serial."""
    lines = (line.split(";")[0].split() for line in text.splitlines())
    return {tuple(line) for line in lines if len(line) > 4 and line[3] != "SOA"}


def test_a_zone_goes_in_is_served_and_comes_out_as_bind_would_write_it(
    landlord: Person, keeper: Keeper, tmp_path: Path
) -> None:
    done = keeper.put(tmp_path, ZONE, as_json=True)
    assert json.loads(done.stdout) == {
        "schema": "autotunnel/serve-import/v1",
        "domain": DOMAIN,
        "records": 8,
        "serial": 7,
    }
    served = Served(landlord)
    try:
        running = keeper.export()  # looking is allowed beside a server
        checked = landlord.run(
            "serve", "-c", str(landlord.home / "serve.toml"), "--check", "--json"
        )
        refused = keeper.put(tmp_path, ZONE)
    finally:
        served.end()
    assert refused.returncode == 1
    assert "another rendezvous is running" in refused.stderr
    assert "stop it" in refused.stderr
    assert json.loads(checked.stdout)["ok"] is True
    ours = records(judged(running, tmp_path))
    left_out = ("ns.", "ended.")
    wanted = {one for one in records(judged(ZONE, tmp_path)) if not one[0].startswith(left_out)}
    assert wanted <= ours
    assert all(one[0].startswith(("_", "ns.")) for one in ours - wanted)  # the server's own
    assert f"fd01::2 ; lease until {SOON}" in running
    assert keeper.export() == running


def test_what_bind_wrote_goes_in_and_the_serial_only_grows(keeper: Keeper, tmp_path: Path) -> None:
    bind = judged(ZONE.replace(" ; lease", " ;"), tmp_path)
    assert keeper.put(tmp_path, bind).returncode == 0
    first = keeper.export()
    with_ns = first + f"ns.{DOMAIN}. 300 IN A 192.0.2.1\n"  # the server's own, not yet written
    assert records(judged(with_ns, tmp_path)) == records(bind)
    again = keeper.put(tmp_path, bind, as_json=True)
    assert json.loads(again.stdout)["serial"] == 8
    file = tmp_path / "out.zone"
    assert keeper(upkeep.export, str(file), None).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    twice = keeper(upkeep.export, str(file), None)
    assert twice.returncode == 1
    assert "name a new file" in twice.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("sub IN NS elsewhere.example.", "does not delegate or sign"),
        ("desk IN CNAME other", "CNAME"),
        ("x IN A 1.2.3", "correct that line"),
        ("$INCLUDE /etc/passwd", "correct that line"),
    ],
)
def test_a_file_that_is_no_zone_for_us_changes_nothing(
    keeper: Keeper, tmp_path: Path, change: str, says: str
) -> None:
    assert keeper.put(tmp_path, ZONE).returncode == 0
    before = keeper.export()
    done = keeper.put(tmp_path, f"{ZONE}{change}\n")
    assert done.returncode == 1, done.stdout
    assert says in done.stderr
    assert keeper.export() == before


def test_errors_of_upkeep_say_what_to_do(landlord: Person, keeper: Keeper, tmp_path: Path) -> None:
    for done, says in (
        (keeper.check(), "there is no zone store"),
        (keeper(upkeep.export, "-", None), "there is no zone store"),
        (keeper(upkeep.put_in, str(tmp_path / "none"), None), "cannot be read"),
        (keeper(upkeep.export, "-", "bob.example"), "name one with --domain"),
    ):
        assert done.returncode == 1
        assert says in done.stderr
    config = str(landlord.home / "serve.toml")
    assert landlord.run("serve", "-c", config, "--check", "--export", "-").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "schema"),
    [
        (["--check"], "serve-check"),
        (["--export", "-"], "serve-export"),
        (["--import", "none"], "serve-import"),
        (["--status"], "serve-status"),
    ],
)
def test_what_fails_says_so_under_its_own_schema(
    landlord: Person, capsys: pytest.CaptureFixture[str], arguments: list[str], schema: str
) -> None:
    for config in ("serve.toml", "none.toml"):
        assert main(["serve", *arguments, "--json", "-c", str(landlord.home / config)]) == 1
        out, err = capsys.readouterr()
        facts = json.loads(out)
        assert facts["schema"] == f"autotunnel/{schema}/v1"
        assert err.startswith("autotunnel serve: ")
        assert facts["error"]


def test_a_damaged_store_is_found(landlord: Person, keeper: Keeper, tmp_path: Path) -> None:
    assert keeper.put(tmp_path, ZONE).returncode == 0
    sound = keeper.check()
    assert sound.returncode == 0
    assert "is sound" in sound.stderr
    for harm, says in (
        ("DELETE FROM record WHERE type = 6", "SOA is missing"),
        ("UPDATE record SET expires = 99999999999 WHERE type = 16", "longer than any"),
        ("UPDATE record SET owner = 'other.' WHERE name LIKE 'desk.%'", "filed under another name"),
        ("UPDATE record SET data = x'00' WHERE type = 28", "cannot be read"),
    ):
        with sqlite3.connect(landlord.home / "zone" / "zone.sqlite") as db:
            db.execute(harm)
        done = keeper.check()
        assert done.returncode == 1
        assert says in done.stderr, done.stderr
