"""``init``, ``invite``, ``join`` and ``revoke`` of an account whose hosts have certificates."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import threading
import time
from collections.abc import Iterator

import pytest

from keys import ca, invitation, store
from keys.ike.certificates import Trust, check
from keys.issuer import Issuer
from keys.signing import SigningError, request_id
from tests.cli.support import DOMAIN, Person, Served, settle
from tunnel.cli.mailbox import Change, Mailbox, MailboxError
from tunnel.config import HostConfig, load_host
from tunnel.io.papers import Papers, issuer_of, keep_ledger
from tunnel.signing import INBOX, REVOKED, answer_name

PAPERS = ("account.key", "host.key", "host.crt", "ca.crt", "ca.key", "issued.json")


@pytest.fixture
def landlord(person: Person) -> Person:
    settle(person)
    return person


def mailbox(config: HostConfig) -> Mailbox:
    path, server = config.account_secret_path(), config.rendezvous.endpoint
    assert path is not None and server is not None
    return Mailbox(store.load_account(DOMAIN, path), server, "tls", None)


@contextlib.contextmanager
def signing_host(owner: Person) -> Iterator[None]:
    """Answers requests as ``up`` does on an issuer, without its device."""
    config = load_host(owner.config)
    issuer, ended = issuer_of(config), threading.Event()
    assert issuer is not None

    async def work(issuer: Issuer) -> None:
        async with mailbox(config) as box:
            while not ended.is_set():
                for octets in await box.read(INBOX):
                    changes = [Change(INBOX, octets)]
                    with contextlib.suppress(SigningError):
                        answer = issuer.answer(octets, int(time.time()))
                        changes.append(Change(answer_name(request_id(octets)), answer, add=True))
                    await box.change(*changes)
                    keep_ledger(config, issuer.ledger)
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(work(issuer)))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def test_init_makes_the_ca_and_the_first_host_s_certificate(person: Person) -> None:
    done = person.ours("init", DOMAIN, "--rendezvous", "203.0.113.10", "--name", "desk")
    assert done.returncode == 0, done.stderr
    for name in PAPERS:
        mode = stat.S_IMODE((person.home / name).stat().st_mode)
        assert mode == (0o644 if name.endswith(".crt") else 0o600), name
    papers = Papers(load_host(person.config))
    assert papers.credentials is not None and papers.issuer is not None
    certified = papers.credentials.for_peer(f"laptop.{DOMAIN}")
    assert certified is not None
    own = certified.credential.payloads()
    check(own, f"desk.{DOMAIN}", certified.trust, int(time.time()))
    for secret in ("host.key", "ca.key"):
        line = (person.home / secret).read_text().splitlines()[1]
        assert line not in done.stdout + done.stderr + person.config.read_text()


def test_an_account_may_ask_for_a_pre_shared_key(person: Person) -> None:
    where = ("--rendezvous", "203.0.113.10", "--name", "desk")
    assert "neither cert nor psk" in person.ours("init", DOMAIN, *where, "--auth", "x").stderr
    assert person.ours("init", DOMAIN, *where, "--auth", "psk").returncode == 0
    assert {one.name for one in person.home.iterdir()} == {
        "account.key", "config.toml", "serve.toml"
    }  # fmt: skip
    papers = Papers(load_host(person.config))
    assert (papers.credentials, papers.issuer) == (None, None)


def test_only_an_issuer_invites_and_revokes(landlord: Person) -> None:
    token = landlord.json("invite")["token"]
    invited = invitation.decode(token, int(time.time()))
    issuer = issuer_of(load_host(landlord.config))
    assert issuer is not None
    assert invited.join_key == issuer.authority.join_key(invited.identity, invited.expires)
    (landlord.home / "ca.key").unlink()
    for command in (("invite",), ("revoke", "desk")):
        done = landlord.ours(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "this host is no issuer" in done.stderr
        assert f"run `autotunnel {command[0]}` on one" in done.stderr


def test_join_makes_the_key_here_and_gets_its_certificate(
    served: Served, landlord: Person, newcomer: Person
) -> None:
    token = landlord.json("invite")["token"]
    with signing_host(landlord):
        facts = newcomer.json("join", token, "--name", "laptop", "--wait", "30s")
    assert facts["certificate_file"] == str(newcomer.home / "host.crt")
    assert not (newcomer.home / "ca.key").exists()
    papers = Papers(load_host(newcomer.config))
    assert papers.issuer is None and papers.credentials is not None
    certified = papers.credentials.for_peer(f"desk.{DOMAIN}")
    assert certified is not None
    check(certified.credential.payloads(), f"laptop.{DOMAIN}", certified.trust, int(time.time()))
    assert (newcomer.home / "ca.crt").read_bytes() == (landlord.home / "ca.crt").read_bytes()
    refused = newcomer.ours("invite")
    assert "this host is no issuer" in refused.stderr


def test_join_waits_says_so_and_goes_on_later(
    served: Served, landlord: Person, newcomer: Person
) -> None:
    token = landlord.json("invite")["token"]
    done = newcomer.ours("join", token, "--name", "laptop", "--wait", "4s")
    assert done.returncode == 1
    assert "waiting for an issuer of" in done.stderr
    assert "start one (autotunnel up on the host that made the invitation)" in done.stderr
    assert {one.name for one in newcomer.home.iterdir()} == {"account.key", "host.key"}
    key = (newcomer.home / "host.key").read_bytes()
    with signing_host(landlord):
        assert newcomer.ours("join", token, "--name", "laptop", "--wait", "30s").returncode == 0
    assert (newcomer.home / "host.key").read_bytes() == key


def test_an_invited_host_cannot_take_the_name_of_another(
    served: Served, landlord: Person, newcomer: Person
) -> None:
    token = landlord.json("invite")["token"]
    with signing_host(landlord):
        done = newcomer.ours("join", token, "--name", "desk", "--wait", "30s")
        assert done.returncode == 1
        assert f"the issuer refuses: desk.{DOMAIN} is another host already" in done.stderr
        assert newcomer.ours("join", token, "--name", "laptop", "--wait", "30s").returncode == 0


def test_revoke_tells_the_zone(served: Served, landlord: Person, newcomer: Person) -> None:
    token = landlord.json("invite")["token"]
    with signing_host(landlord):
        assert newcomer.ours("join", token, "--name", "laptop", "--wait", "30s").returncode == 0
    nobody = landlord.ours("revoke", "tablet")
    assert "no valid certificate of tablet" in nobody.stderr
    assert "those of desk, laptop" in nobody.stderr
    facts = landlord.json("revoke", "laptop")
    assert facts["published"] is True
    (certificate,) = store.load_certificates(newcomer.home / "host.crt")
    assert facts["serials"] == [f"{certificate.serial_number:x}"]

    async def look() -> tuple[bytes, ...]:
        async with mailbox(load_host(newcomer.config)) as box:
            return await box.read(REVOKED)

    (octets,) = asyncio.run(look())
    (authority,) = store.load_certificates(newcomer.home / "ca.crt")
    assert ca.read_revocations(octets, authority).serials == {certificate.serial_number}
    assert "no valid certificate" in landlord.ours("revoke", "laptop").stderr, "it is done already"


def test_revoke_works_without_a_network_and_says_who_will_tell_the_zone(landlord: Person) -> None:
    done = landlord.ours("revoke", "desk")
    assert done.returncode == 0
    assert "the zone has not been told" in done.stderr
    issuer = issuer_of(load_host(landlord.config))
    assert issuer is not None and issuer.ledger.number == 1


def test_a_mailbox_without_a_rendezvous_fails_with_its_reason(landlord: Person) -> None:
    async def look() -> None:
        async with mailbox(load_host(landlord.config)) as box:
            await box.read(INBOX)

    with pytest.raises(MailboxError, match="cannot be reached"):
        asyncio.run(look())


def test_wrong_papers_are_refused_with_cause_and_fix(landlord: Person) -> None:
    config, home = load_host(landlord.config), landlord.home
    key, certificate = home / "host.key", home / "host.crt"
    good = key.read_bytes()
    trust = store.load_certificates(certificate)
    assert isinstance(Trust(trust), Trust)
    key.write_bytes((home / "ca.key").read_bytes())
    with pytest.raises(store.SecretFileError, match="is not the certificate of the key"):
        Papers(config)
    key.write_bytes(b"x")
    with pytest.raises(store.SecretFileError, match="not a private key in PEM"):
        Papers(config)
    key.write_bytes(good)
    (home / "issued.json").write_text("{")
    with pytest.raises(store.SecretFileError, match=r"issued\.json: the list"):
        Papers(config)
    (home / "issued.json").unlink()
    certificate.write_text("")
    with pytest.raises(store.SecretFileError, match="no certificate in PEM"):
        Papers(config)
    certificate.unlink()
    with pytest.raises(store.SecretFileError, match="bring `autotunnel join` to its end"):
        Papers(config)
