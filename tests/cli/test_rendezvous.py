"""A real rendezvous and the commands that talk with it: serve, invite, join, doctor."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from discovery.types import TsigKey
from keys import invitation, store
from keys.account import new_secret
from tests.cli.support import DOMAIN, Person, Served
from tests.ports import free_port
from tunnel.cli import checks, probe, rendezvous
from tunnel.config import load_host, load_serve
from tunnel.io import capability


def test_serve_says_where_it_listens_and_ends_cleanly_on_sigterm(served: Served) -> None:
    assert served.told["schema"] == "autotunnel/serve/v1"
    assert served.told["domains"] == [DOMAIN]
    assert len(served.told["pin"]) == 64
    assert served.told["tls"][0][0] == "127.0.0.1"
    said = served.end()
    assert served.process.returncode == 0
    assert "Traceback" not in said


def test_serve_holds_no_capability_once_it_listens(served: Served) -> None:
    held = capability.sets(Path(f"/proc/{served.told['pid']}/status"))
    assert (held["CapPrm"], held["CapEff"], held["NoNewPrivs"]) == (0, 0, 1)


def test_serve_on_an_occupied_port_says_which(served: Served, landlord: Person) -> None:
    config = landlord.home / "serve.toml"
    config.write_text(config.read_text().replace('"zone"', '"other"'))
    done = landlord.run("serve", "-c", str(config))
    assert done.returncode == 1
    assert str(served.told["udp"][0][1]) in done.stderr
    assert "in use" in done.stderr.lower() or "occupied" in done.stderr.lower()


def test_a_token_brings_a_host_in_once(served: Served, landlord: Person, newcomer: Person) -> None:
    token = landlord.json("invite")["token"]
    assert invitation.decode(token, int(time.time())).pin == bytes.fromhex(served.told["pin"])
    facts = newcomer.json("join", token, "--name", "laptop")
    assert facts["name"] == f"laptop.{DOMAIN}"
    key = newcomer.home / "account.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert store.load_account(DOMAIN, key) == store.load_account(
        DOMAIN, landlord.home / "account.key"
    )
    config = load_host(newcomer.config)
    assert config.rendezvous == load_host(landlord.config).rendezvous
    assert config.host.name == "laptop"
    thief = Person(newcomer.home / "thief")
    thief.home.mkdir()
    second = thief.ours("join", token, "--name", "thief")
    assert second.returncode == 1
    assert "this invitation was used already" in second.stderr
    assert list(thief.home.iterdir()) == []


def test_a_joined_host_s_doctor_is_content_with_the_rendezvous(
    served: Served, landlord: Person, newcomer: Person
) -> None:
    newcomer.json("join", landlord.json("invite")["token"], "--name", "laptop")
    (found,) = checks.rendezvous(load_host(newcomer.config))
    assert found.state is checks.State.OK
    assert served.told["pin"] in found.found


def test_a_rendezvous_with_another_key_gets_nothing_and_the_token_stays_good(
    served: Served, landlord: Person, newcomer: Person
) -> None:
    token = landlord.json("invite")["token"]
    invited = invitation.decode(token, int(time.time()))
    spoilt = invitation.encode(
        invitation.Invitation(
            invited.domain, invited.server, None, invited.tls_port, bytes(32),
            invited.identity, invited.expires, invited.key,
        )
    )  # fmt: skip
    done = newcomer.ours("join", spoilt, "--name", "laptop")
    assert done.returncode == 1
    assert "somebody may be in the middle" in done.stderr
    assert newcomer.ours("join", token, "--name", "laptop").returncode == 0


def test_a_token_of_another_account_is_refused_in_words(
    served: Served, landlord: Person, newcomer: Person
) -> None:
    invited = invitation.decode(landlord.json("invite")["token"], int(time.time()))
    forged = invitation.encode(
        invitation.Invitation(
            invited.domain, invited.server, None, invited.tls_port, invited.pin,
            invited.identity, invited.expires, bytes(32),
        )
    )  # fmt: skip
    done = newcomer.ours("join", forged, "--name", "laptop")
    assert done.returncode == 1
    assert "does not know this invitation" in done.stderr


def test_a_rendezvous_machine_joins_beside_the_secret_that_it_has(
    landlord: Person, newcomer: Person
) -> None:
    """It was brought there for `serve`. No token is used up; nobody needs to be asked."""
    key = newcomer.home / "account.key"
    store.save_account_secret(key, new_secret(os.urandom))
    token = landlord.json("invite")["token"]
    done = newcomer.ours("join", token, "--name", "hub")
    assert done.returncode == 1
    assert f"{key} exists and is not overwritten" in done.stderr
    secret = (landlord.home / "account.key").read_bytes()
    key.write_bytes(secret)
    assert newcomer.json("join", token, "--name", "hub")["name"] == f"hub.{DOMAIN}"
    assert key.read_bytes() == secret


def test_join_without_a_rendezvous_says_so(landlord: Person, newcomer: Person) -> None:
    done = newcomer.ours("join", landlord.json("invite")["token"], "--name", "laptop")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "try the same token again" in done.stderr


def test_a_wrong_secret_is_told_by_doctor(served: Served, landlord: Person) -> None:
    key = landlord.home / "account.key"
    store.save_account_secret(key, new_secret(os.urandom), replace=True)
    (found,) = checks.rendezvous(load_host(landlord.config))
    assert found.state is checks.State.FAILED
    assert "account secret is a different one" in found.found
    assert "copy the secret file from a working host" in found.fix


@pytest.mark.parametrize(("skew", "words"), [(1000, "ahead of"), (-1000, "behind")])
def test_a_clock_beyond_tsig_s_fudge_is_told_by_doctor(
    served: Served, landlord: Person, monkeypatch: pytest.MonkeyPatch, skew: int, words: str
) -> None:
    """RFC 8945 §5.2.3: more than 300 s apart."""
    settings = load_host(landlord.config)
    (server,) = [tuple(one) for one in served.told["tls"]]
    account = store.load_account(DOMAIN, landlord.home / "account.key")
    wrong_clock = SimpleNamespace(time=lambda: time.time() + skew, monotonic=time.monotonic)
    monkeypatch.setattr(probe, "time", wrong_clock)
    monkeypatch.setattr("discovery.io_transport.time", wrong_clock)
    seen = asyncio.run(probe.look(settings, (str(server[0]), int(server[1])), account))
    assert seen.problem is not None
    assert f"s {words} the rendezvous" in seen.problem
    assert "timedatectl set-ntp true" in seen.problem


def test_serve_before_a_zone_that_is_elsewhere_says_where_it_looked(landlord: Person) -> None:
    port = free_port()
    running = Served(landlord, "--backing", f"127.0.0.1:{port}")
    assert running.process.stderr is not None
    while "away" not in (line := running.process.stderr.readline()):
        assert line
    assert f"127.0.0.1:{port}" in line
    running.end()
    assert running.process.returncode == 0


def test_a_key_for_the_zones_server_is_read_and_a_wrong_one_has_its_sentence(
    landlord: Person,
) -> None:
    serve, key = landlord.home / "serve.toml", landlord.home / "front.key"
    serve.write_text(serve.read_text() + 'backing = "192.0.2.1"\nbacking_key_file = "front.key"\n')
    key.touch(0o600)
    key.write_text('key "front.example" { algorithm hmac-sha512; secret "c2VjcmV0"; };\n')
    settings = load_serve(serve)
    backing = rendezvous.zone_account(settings, settings.accounts[0]).backing
    assert backing is not None
    assert backing.server == ("192.0.2.1", 53)
    assert backing.key == TsigKey("front.example.", b"secret", "hmac-sha512")
    key.write_text("nothing\n")
    done = landlord.run("serve", "-c", str(serve))
    assert done.returncode == 1
    assert "front.key: no key is in it" in done.stderr
    done = landlord.run("serve", "-c", str(serve), "--import", "-")
    assert "change it there" in done.stderr


def test_a_zone_cannot_be_on_a_server_without_address(landlord: Person) -> None:
    done = landlord.run("serve", "-c", str(landlord.home / "serve.toml"), "--backing", "a b")
    assert done.returncode == 2
    assert "192.0.2.1:53" in done.stderr
