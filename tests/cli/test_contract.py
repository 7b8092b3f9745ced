"""The contract of the command line (DESIGN §5): stdout, stderr, exit codes, JSON."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
import tomllib
from base64 import b64encode
from pathlib import Path

import pytest

from keys import invitation, store
from tests.cli.support import DOMAIN, ROOT, Person
from tunnel.config import load_host, load_serve

COMMANDS = (
    *(
        "demo",
        "serve",
        "up",
        "init",
        "invite",
        "join",
        "revoke",
        "tsig",
        "status",
        "ping",
        "lookup",
    ),
    *("down", "explain", "doctor", "device", "service", "completion", "advertise", "browse"),
    *("rules", "lab"),
)


def test_every_command_of_the_contract_is_there(person: Person) -> None:
    done = person.run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["stat"],
        ["status", "--jsn"],
        ["ping"],
        ["init"],
        ["completion", "tcsh"],
        ["ping", "a", "-n", "0"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_talk(person: Person, arguments: list[str]) -> None:
    done = person.run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr or not arguments  # without a command the help is what was asked for


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["ping", "laptop"],
        ["lookup", "laptop"],
        ["explain", "laptop"],
        ["rules"],
        ["down"],
    ],
)
def test_a_question_to_a_host_that_does_not_run_says_so(owner: Person, command: list[str]) -> None:
    done = owner.ours(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no host runs here" in done.stderr
    assert "start it with `autotunnel up`" in done.stderr
    assert "no host runs here" in owner.json(*command, code=1)["error"]


@pytest.mark.parametrize("command", [["status"], ["up"], ["invite"], ["tsig"], ["down"]])
def test_without_a_configuration_the_fix_is_init_or_join(
    person: Person, command: list[str]
) -> None:
    done = person.ours(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{person.config}: there is no such file" in done.stderr
    assert "autotunnel init" in done.stderr


def test_a_bad_configuration_names_file_key_and_fix(owner: Person) -> None:
    owner.config.write_text(owner.config.read_text().replace("listen = 4500", "lissten = 4500"))
    for command in ("up", "status", "invite"):
        done = owner.ours(command)
        assert (done.returncode, done.stdout) == (1, "")
        assert f'{owner.config}: host.lissten: unknown key; did you mean "listen"?' in done.stderr
        assert "Traceback" not in done.stderr


def test_init_writes_three_files_and_never_over_others(person: Person) -> None:
    facts = json.loads(
        person.run("init", DOMAIN, "--rendezvous", "ns.example:8853", "--name", "desk", "--json",
                   "-c", str(person.config)).stdout
    )  # fmt: skip
    assert facts == {
        "schema": "autotunnel/init/v1",
        "name": f"desk.{DOMAIN}",
        "config": str(person.config),
        "secret_file": str(person.home / "account.key"),
        "serve_config": str(person.home / "serve.toml"),
    }
    assert stat.S_IMODE((person.home / "account.key").stat().st_mode) == 0o600
    config, serve = load_host(person.config), load_serve(person.home / "serve.toml")
    assert config.rendezvous.endpoint == ("ns.example", 8853)
    assert ("0.0.0.0", 8853) in serve.tls_listen
    account = store.load_account(DOMAIN, person.home / "account.key")
    assert len(account.secret) == 32
    again = person.ours("init", DOMAIN, "--rendezvous", "ns.example", "--name", "desk")
    assert again.returncode == 1
    assert "exists and is not overwritten" in again.stderr
    assert store.load_account(DOMAIN, person.home / "account.key") == account


def test_init_s_secret_is_not_in_what_it_says_nor_in_the_toml(person: Person) -> None:
    done = person.ours("init", DOMAIN, "--rendezvous", "203.0.113.10", "--name", "desk")
    secret = (person.home / "account.key").read_text().strip()
    for text in (done.stdout, done.stderr, person.config.read_text()):
        assert secret not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nodots", "--rendezvous", "a"], "'nodots' is no domain name"),
        ([DOMAIN, "--rendezvous", "a:99999"], "is not a number from 1 to 65535"),
        ([DOMAIN, "--rendezvous", "a", "--name", "My Mac"], "'My Mac' is no host label"),
        ([DOMAIN, "--rendezvous", "a", "--transport", "quic"], "none of tls, tcp and udp"),
    ],
)
def test_init_says_what_is_wrong_and_writes_nothing(
    person: Person, arguments: list[str], sentence: str
) -> None:
    done = person.ours("init", *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert list(person.home.iterdir()) == []


def test_invite_works_offline_and_its_token_says_all_that_join_needs(owner: Person) -> None:
    facts = owner.json("invite", "--expires", "30m")
    now = int(time.time())
    invited = invitation.decode(facts["token"], now)
    account = store.load_account(DOMAIN, owner.home / "account.key")
    assert invited.domain == DOMAIN
    assert (invited.server, invited.tls_port) == ("127.0.0.1", 9)
    assert 1700 <= invited.expires - now <= 1800
    assert invited.key == account.invitation_key(invited.identity, invited.expires)
    assert facts["token"] != owner.json("invite")["token"]


def test_invite_prints_the_token_alone_on_stdout(owner: Person) -> None:
    done = owner.ours("invite")
    (token,) = done.stdout.splitlines()
    assert token.startswith("at2-")
    assert "join TOKEN" in done.stderr
    assert "the token carries no pin of the rendezvous: 127.0.0.1:9: connection refused" in (
        done.stderr
    )


def test_invite_carries_the_pin_of_the_configuration(owner: Person) -> None:
    pin = "ab" * 32
    text = owner.config.read_text()
    owner.config.write_text(text.replace("[rendezvous]", f'[rendezvous]\npin = "{pin}"'))
    token = owner.json("invite")["token"]
    assert invitation.decode(token, int(time.time())).pin == bytes.fromhex(pin)


@pytest.mark.parametrize("text", ["1", "h", "0s", "-1h", "1w", "400d", "1h30m"])
def test_invite_refuses_what_is_no_length_of_time(owner: Person, text: str) -> None:
    done = owner.ours("invite", f"--expires={text}")
    assert done.returncode == 1
    assert "is no length of time" in done.stderr


def test_a_careless_secret_file_is_refused_with_the_command_that_mends_it(owner: Person) -> None:
    key = owner.home / "account.key"
    key.chmod(0o644)
    for command in ("invite", "tsig"):
        done = owner.ours(command)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"chmod 600 {key}" in done.stderr
    key.unlink()
    assert "there is no such file" in owner.ours("invite").stderr


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("hello", 'begins with "at1-"'),
        ("at1-abcd", "cut short"),
        ("at9-abcd", "newer version"),
        ("at1-" + "1" * 40, "mistyped"),
    ],
)
def test_a_bad_token_is_told_and_nothing_is_written(
    person: Person, token: str, sentence: str
) -> None:
    done = person.ours("join", token, "--name", "laptop")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert list(person.home.iterdir()) == []


def test_an_expired_token_says_since_when(owner: Person, tmp_path: Path) -> None:
    past = int(time.time()) - 7300
    token = invitation.encode(
        invitation.Invitation(DOMAIN, "203.0.113.10", None, 853, None, b"12345678", past, bytes(32))
    )
    other = Person(tmp_path / "other")
    other.home.mkdir()
    done = other.ours("join", token, "--name", "laptop")
    assert done.returncode == 1
    assert "expired 2 hours ago" in done.stderr


def test_join_does_not_use_a_token_up_where_it_could_not_write(owner: Person) -> None:
    token = owner.json("invite")["token"]
    done = owner.ours("join", token, "--name", "laptop")
    assert "exists and is not overwritten" in done.stderr


def test_tsig_prints_a_key_file_that_bind_s_tools_read(owner: Person) -> None:
    account = store.load_account(DOMAIN, owner.home / "account.key")
    done = owner.ours("tsig")
    assert f'key "{DOMAIN}." {{' in done.stdout
    assert f'secret "{b64encode(account.tsig_secret).decode()}";' in done.stdout
    key_file = owner.home / "tsig.key"
    key_file.write_text(done.stdout)
    question = ["nsupdate", "-k", str(key_file)]
    judged = subprocess.run(question, input="quit\n", capture_output=True, text=True, check=False)
    assert (judged.returncode, judged.stderr) == (0, "")
    assert owner.json("tsig")["algorithm"] == "hmac-sha256"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(person: Person, shell: str) -> None:
    done = person.run("completion", shell)
    assert done.returncode == 0
    assert "_AUTOTUNNEL_COMPLETE" in done.stdout


def test_completion_in_bash_completes_our_commands(person: Person) -> None:
    script = (
        f'autotunnel() {{ {sys.executable} -m tunnel "$@"; }}; export -f autotunnel\n'
        "source <(autotunnel completion bash)\n"
        "COMP_WORDS=(autotunnel comp) COMP_CWORD=1\n"
        # The script calls its program by way of env(1), which knows no functions.
        'env() { local -x "${@:1:$#-1}"; "${@: -1}"; }\n'
        "_autotunnel_completion autotunnel\n"
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=person.env,
        check=False,
    )
    assert done.stdout.split() == ["completion"], done.stderr


def test_no_color_is_honoured_and_a_pipe_has_none(owner: Person) -> None:
    forced = {"FORCE_COLOR": "1", "TERM": "xterm"}
    assert "\x1b[" in owner.run("status", "-c", str(owner.config), **forced).stderr
    for env in ({}, {**forced, "NO_COLOR": "1"}):
        assert "\x1b[3" not in owner.run("status", "-c", str(owner.config), **env).stderr


def test_a_reader_that_has_gone_is_no_traceback(owner: Person) -> None:
    done = subprocess.run(
        f"{sys.executable} -m tunnel service print | true",
        shell=True, cwd=ROOT, env=owner.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_service_unit_is_hardened_and_starts_our_configuration(owner: Person) -> None:
    unit = owner.ours("service", "print").stdout
    for line in (
        "User=autotunnel",
        "AmbientCapabilities=CAP_NET_ADMIN",
        "CapabilityBoundingSet=CAP_NET_ADMIN",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
        "DevicePolicy=closed",
        "DeviceAllow=/dev/net/tun rw",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallFilter=@system-service",
        "MemoryDenyWriteExecute=yes",
        "StateDirectory=autotunnel",
    ):
        assert f"\n{line}\n" in unit
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert start.endswith(f"up -c {owner.config}")


def test_service_unit_for_a_rendezvous_has_its_own_one_capability(owner: Person) -> None:
    unit = owner.run("service", "print", "--for", "serve", "--user", "dns").stdout
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in unit
    assert "User=dns\n" in unit
    assert "PrivateDevices=yes\n" in unit
    assert "AF_NETLINK" not in unit


def test_service_unit_for_a_rendezvous_with_a_home_agent_has_what_both_need(owner: Person) -> None:
    """By the option, or by its file's word; it ends the host itself, before the rendezvous."""
    serve = owner.home / "serve.toml"
    unit = owner.run("service", "print", "--for", "serve", "--home-agent", "-c", str(serve)).stdout
    for line in (
        "AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_ADMIN",
        "DeviceAllow=/dev/net/tun rw",
        "KillMode=mixed",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    ):
        assert line in unit.splitlines()
    serve.write_text(serve.read_text().replace("# home_agent =", "home_agent ="))
    by_file = owner.run("service", "print", "--for", "serve", "-c", str(serve)).stdout
    assert by_file == unit
    assert "KillMode" not in owner.ours("service", "print").stdout
    wrong = owner.ours("service", "print", "--home-agent")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_service_unit_s_command_line_runs(owner: Person) -> None:
    unit = owner.ours("service", "print").stdout
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = start.removeprefix("ExecStart=").split()
    program = words[: words.index("up")]
    env = {"PATH": owner.env["PATH"]}
    done = subprocess.run(
        [*program, "--help"], capture_output=True, text=True, cwd="/", env=env, check=False
    )
    assert done.returncode == 0, done.stderr


def test_service_install_writes_once_and_says_the_rest(owner: Person) -> None:
    units, users, rules = (owner.home / name for name in ("units", "sysusers.d", "rules.d"))
    units.mkdir()
    rules.mkdir()
    places = ("--units", str(units), "--sysusers", str(users), "--polkit", str(rules))
    where = (*places, "-c", str(owner.config))
    done = owner.run("service", "install", *where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(units / "autotunnel.service")
    assert "systemctl enable --now autotunnel.service" in done.stderr
    assert (users / "autotunnel.conf").read_text().startswith("u autotunnel - ")
    rule = (rules / "50-autotunnel.rules").read_text()
    assert 'subject.user == "autotunnel"' in rule
    assert set(re.findall(r'"org\.freedesktop\.(\w+)\.', rule)) == {"resolve1"}
    again = owner.run("service", "install", *where)
    assert "exists and is not overwritten" in again.stderr


def test_device_create_wants_a_fixed_host_id_and_a_user(owner: Person) -> None:
    done = owner.run("device", "create", "--user", "nobody", "-c", str(owner.config))
    assert done.returncode == 1
    assert "set host.id to an address" in done.stderr
    owner.config.write_text(owner.config.read_text().replace('id = "auto"', 'id = "fd00::1"'))
    done = owner.run("device", "create", "--user", "no-such-user", "-c", str(owner.config))
    assert "there is no user 'no-such-user'" in done.stderr
    wrong = ("--user", "nobody", "--peer", "2001:db8::1", "-c", str(owner.config))
    assert "not a unique local address" in owner.run("device", "create", *wrong).stderr


def test_the_files_of_init_are_toml_that_says_what_it_is(owner: Person) -> None:
    text = owner.config.read_text()
    assert tomllib.loads(text)["host"]["name"] == "desk"
    assert text.startswith("# autotunnel: this host.")
