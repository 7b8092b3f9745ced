"""What goes wrong on a real machine: each mistake gets a sentence with cause and fix, and leaves
nothing half done."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keys import store
from tests.cli.support import DOMAIN, NOBODY, Person
from tunnel.cli import FAMILIES, account, joining, main, run
from tunnel.cli.voice import tell_failure


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOENT, "check the path"),
        (errno.EACCES, "check its owner and mode, or run this with sudo"),
        (errno.ENOSPC, "make room there"),
        (errno.EROFS, "choose a place that can be written"),
    ],
)
def test_an_error_of_the_system_has_its_file_and_a_fix(
    number: int, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_failure("init", False, OSError(number, os.strerror(number), "/x"))
    assert capsys.readouterr().err == f"autotunnel init: /x: {os.strerror(number)}; {fix}\n"


def test_the_version_is_told(person: Person) -> None:
    done = person.run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("autotunnel")


def test_a_command_loads_its_own_family_only(person: Person) -> None:
    """It answers in half the time."""
    code = (
        "import sys; from tunnel.cli import main; main(['status']); "
        "print(*[one for one in sys.modules if one.startswith('tunnel.cli.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=person.env, check=True
    )
    loaded = {one.removeprefix("tunnel.cli.") for one in done.stdout.split()}
    assert loaded & set(FAMILIES) == {"observe"}


def test_an_interrupt_before_a_command_could_begin_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunnel.cli.application", interrupted)
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "autotunnel: interrupted\n"


def test_an_interrupt_while_a_command_that_stays_begins_waits_for_it(landlord: Person) -> None:
    """Python reads modules for half a second, and would show where it was."""
    with subprocess.Popen(
        [sys.executable, "-m", "tunnel", "serve", "-c", str(landlord.home / "serve.toml")],
        stderr=subprocess.PIPE,
        text=True,
        env=landlord.env,
    ) as process:
        while b"cli.server" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=180)[1]
        assert process.returncode in (0, 1)
        assert "Traceback" not in said


def test_service_install_writes_all_or_nothing(owner: Person) -> None:
    folders = {name: owner.home / name for name in ("units", "sysusers", "polkit")}
    folders["sysusers"].write_text("a file")
    where = [word for name, path in folders.items() for word in (f"--{name}", str(path))]
    done = owner.ours("service", "install", *where)
    assert (done.returncode, done.stdout) == (1, "")
    assert str(folders["sysusers"]) in done.stderr
    assert not list(folders["units"].iterdir())
    folders["sysusers"].unlink()
    assert owner.ours("service", "install", *where).returncode == 0
    again = owner.ours("service", "install", *where)
    assert "take it away if it shall be written anew" in again.stderr


@pytest.mark.parametrize("user", ["a;b", "Root", "x\nExecStartPre=/bin/true", ""])
def test_a_unit_has_no_room_for_more_than_a_user_s_name(owner: Person, user: str) -> None:
    for command in ("print", "install"):
        done = owner.ours("service", command, "--user", user)
        assert (done.returncode, done.stdout) == (2, "")


def test_the_file_of_the_other_one_is_told_apart(owner: Person) -> None:
    up = owner.run("up", "-c", str(owner.home / "serve.toml"))
    assert "this is a rendezvous' file; `up` reads a config.toml" in up.stderr
    serve = owner.run("serve", "-c", str(owner.config))
    assert "this is a host's file; `serve` reads a serve.toml" in serve.stderr


def test_init_where_nobody_may_write_says_where_and_what_to_do(person: Person) -> None:
    done = person.run("init", DOMAIN, "--rendezvous", NOBODY, "-c", "/proc/no/config.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "autotunnel init: /proc/no: No such file or directory; check the path\n"


def test_init_takes_back_what_it_could_not_bring_to_its_end(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "host.crt")

    monkeypatch.setattr(store, "save_certificates", full)
    config = str(person.home / "new" / "config.toml")
    assert main(["init", DOMAIN, "--rendezvous", NOBODY, "--name", "desk", "-c", config]) == 1
    assert list((person.home / "new").iterdir()) == []


def test_join_uses_no_token_up_where_it_could_not_keep_the_secret(
    owner: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an account with certificates and without; a file where the folder should be."""
    monkeypatch.setattr(joining, "_redeem", lambda *_: pytest.fail("it was used up"))
    token = owner.json("invite")["token"]
    config = str(owner.config / "config.toml")
    assert main(["join", token, "--name", "laptop", "-c", config]) == 1
    assert f"{owner.config}: " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["tsig"], ["tsig", "--json"], ["lab", "--list"], ["--help"]])
def test_data_that_cannot_be_written_is_told_once(owner: Person, arguments: list[str]) -> None:
    config = ["-c", str(owner.config)] if "tsig" in arguments else []
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tunnel", *arguments, *config],
            stdout=full, stderr=subprocess.PIPE, text=True, env=owner.env, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "stdout: No space left on device" in done.stderr


def test_closed_files_are_no_trouble(landlord: Person) -> None:
    """As a careless cron or init leaves them; libuv would abort the process."""
    quiet = f"{sys.executable} -m tunnel tsig -c {landlord.config} >&- 2>&- <&-"
    assert subprocess.run(quiet, shell=True, env=landlord.env, check=False).returncode == 0
    serve = landlord.home / "serve.toml"
    serve.write_text(serve.read_text().replace('listen = ["127.0.0.1', 'listen = ["192.0.2.1', 1))
    line = f"{sys.executable} -m tunnel serve -c {serve} >&- <&-"
    done = subprocess.run(
        line, shell=True, env=landlord.env, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 1
    assert "autotunnel serve: cannot listen on 192.0.2.1:" in done.stderr


def test_an_encoding_that_lacks_a_letter_is_no_error(owner: Person) -> None:
    """Neither where a path is no UTF-8, nor where a terminal knows ASCII only."""
    path = os.fsdecode(b"d\xff/config.toml")
    where = ("init", DOMAIN, "--rendezvous", NOBODY, "--name", "desk", "-c", path)
    for number, env in enumerate(({"PYTHONIOENCODING": "utf-8:strict"}, {"LC_ALL": "POSIX"})):
        home = owner.home / str(number)
        home.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "tunnel", *where],
            capture_output=True, cwd=home, env={**owner.env, **env}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"config.toml" in done.stdout
    done = owner.run("lab", "--help", PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, done.stderr) == (0, "")
    wrong = owner.run("init", "…", "--rendezvous", "a", PYTHONIOENCODING="ascii:strict")
    assert "is no domain name" in wrong.stderr


def test_a_reader_that_leaves_in_the_middle_is_nothing_to_tell(
    capfd: pytest.CaptureFixture[str], owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: str, __: object) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(account, "emit", gone)
    assert main(["tsig", "--json", "-c", str(owner.config)]) == 1
    assert capfd.readouterr() == ("", "")


def test_a_host_that_cannot_even_say_why_it_does_not_start(
    owner: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its log is on a full disk."""
    monkeypatch.setattr(run, "_wait_ready", lambda _: False)
    monkeypatch.setattr(run, "_tail", lambda _: "")
    assert main(["up", "--detach", "-c", str(owner.config)]) == 1
    assert "nothing stands in" in capsys.readouterr().err
