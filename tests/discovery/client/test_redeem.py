"""Redeeming invitations: the exchange in memory, and over real sockets with a real token."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from discovery import exchange, invitations, tsig
from discovery.held import ZoneAccount
from discovery.io_redeem import redeem
from discovery.io_serve import RendezvousServer
from discovery.redeem import RedeemError, Redemption
from discovery.store import MemoryStore
from discovery.zone import ZoneServer
from keys.account import Account
from keys.invitation import Invitation, decode, encode

UNIX = 1700000000
DOMAIN = "alice.members.example"
ALICE = Account(DOMAIN, bytes(range(32)))
EXPIRES = UNIX + 3600
IDENTITY = b"\x01\x02\x03\x04\x05\x06\x07\x08"


def zone_account(account: Account = ALICE) -> ZoneAccount:
    return ZoneAccount(account.domain, account.tsig_secret, account.secret, account.invitation_key)


class World:
    """A rendezvous in memory, and joining hosts."""

    def __init__(self) -> None:
        self.server = ZoneServer([zone_account()], MemoryStore(), unix=UNIX)

    def redeem(
        self, redemption: Redemption, unix: int = UNIX, server_unix: int = UNIX
    ) -> bytes | None:
        request = redemption.ask(77, unix)
        (answer,) = self.server.handle(request.wire, ("192.0.2.1", 5), "tls", server_unix)
        return redemption.take(request, answer, unix)


def begin(key: bytes | None = None, expires: int = EXPIRES) -> Redemption:
    right = ALICE.invitation_key(IDENTITY, expires)
    return Redemption.begin(DOMAIN, IDENTITY, expires, key or right, os.urandom)


def test_an_invitation_becomes_the_account_secret() -> None:
    assert World().redeem(begin()) == ALICE.secret


def test_it_works_once_but_a_lost_answer_can_be_asked_for_again() -> None:
    world, first = World(), begin()
    assert world.redeem(first) == world.redeem(first, UNIX + 5, UNIX + 5) == ALICE.secret
    with pytest.raises(RedeemError, match="used already"):
        world.redeem(begin())


def test_an_expired_one_is_refused_in_words() -> None:
    with pytest.raises(RedeemError, match="has expired"):
        World().redeem(begin(), EXPIRES + 1, EXPIRES + 1)


def test_an_expiry_that_was_changed_by_hand_makes_another_key() -> None:
    forged = Redemption.begin(
        DOMAIN, IDENTITY, EXPIRES + 10**6, ALICE.invitation_key(IDENTITY, EXPIRES), os.urandom
    )
    with pytest.raises(RedeemError, match="does not know this invitation"):
        World().redeem(forged)


def test_another_accounts_invitation_is_not_known() -> None:
    with pytest.raises(RedeemError, match="does not know this invitation") as caught:
        World().redeem(begin(key=bytes(32)))
    assert not caught.value.temporary


def test_a_wrong_clock_is_told_and_does_not_burn_the_invitation() -> None:
    world, redemption = World(), begin()
    with pytest.raises(RedeemError, match=r"400 s behind the rendezvous; fix the clock") as caught:
        world.redeem(redemption, UNIX - 400)
    assert caught.value.temporary
    assert world.redeem(redemption) == ALICE.secret


def test_a_store_that_fails_is_temporary() -> None:
    world = World()
    world.server._store.fail = True
    with pytest.raises(RedeemError) as caught:
        world.redeem(begin())
    assert caught.value.temporary


def test_foreign_messages_are_not_the_answer() -> None:
    world, redemption = World(), begin()
    request = redemption.ask(77, UNIX)
    (answer,) = world.server.handle(request.wire, ("192.0.2.1", 5), "tls", UNIX)
    other = redemption.ask(78, UNIX)
    for wire in (b"", answer[:20], b"\x00" * 40, request.wire):
        assert redemption.take(request, wire, UNIX) is None
    assert redemption.take(other, answer, UNIX) is None
    assert redemption.take(request, answer, UNIX) == ALICE.secret


def test_a_sealed_secret_of_another_nonce_does_not_open() -> None:
    redemption = begin()
    request = redemption.ask(77, UNIX)
    assert request.question is not None
    sealed = invitations.seal(ALICE.secret, redemption.key, bytes(16), DOMAIN)
    query = dns.message.from_wire(exchange.query(*request.question, 77))
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text(request.question[0], 0, "IN", "TXT", f'"{sealed}"'))
    wire, _ = tsig.sign(response.to_wire(), request.key, UNIX, request_mac=request.mac)
    with pytest.raises(RedeemError, match="does not open"):
        redemption.take(request, wire, UNIX)


# --- With sockets ---------------------------------------------------------------------------


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RendezvousServer]:
    local = [("127.0.0.1", 0)]
    made = RendezvousServer(
        accounts=[zone_account()], listen=local, tls_listen=local, state_dir=tmp_path
    )
    await made.start()
    yield made
    await made.stop()


def token_of(server: RendezvousServer, identity: bytes, pin: bytes | None) -> Invitation:
    """Make a token as ``invite`` does, and read it as ``join`` does."""
    now = int(time.time())
    made = Invitation(
        DOMAIN,
        "127.0.0.1",
        server.listening["tcp"][0][1],
        server.listening["tls"][0][1],
        pin,
        identity,
        now + 60,
        ALICE.invitation_key(identity, now + 60),
    )
    return decode(encode(made), now)


async def use(token: Invitation, *, tls: bool = True, attempts: int = 1) -> bytes:
    return await redeem(
        server=token.server,
        dns_port=token.dns_port,
        tls_port=token.tls_port if tls else None,
        domain=token.domain,
        identity=token.identity,
        expires=token.expires,
        key=token.key,
        pin=token.pin,
        attempts=attempts,
    )


async def test_a_real_token_over_tls_with_its_pin_and_over_tcp(server: RendezvousServer) -> None:
    assert await use(token_of(server, b"\x01", server.pin)) == ALICE.secret
    assert await use(token_of(server, b"\x02", None)) == ALICE.secret
    assert await use(token_of(server, b"\x03", None), tls=False) == ALICE.secret
    with pytest.raises(RedeemError, match="used already"):
        await use(token_of(server, b"\x01", server.pin))


async def test_a_wrong_pin_ends_it_before_the_token_is_used(server: RendezvousServer) -> None:
    with pytest.raises(RedeemError, match="not the pinned one"):
        await use(token_of(server, b"\x04", bytes(32)), attempts=3)
    assert await use(token_of(server, b"\x04", server.pin)) == ALICE.secret


async def test_a_rendezvous_that_is_not_there_is_told(server: RendezvousServer) -> None:
    token = token_of(server, b"\x05", server.pin)
    await server.stop()
    with pytest.raises(RedeemError, match=r"cannot be reached.*try the same token") as caught:
        await use(token, attempts=2)
    assert caught.value.temporary


async def test_a_token_without_ports_is_told() -> None:
    with pytest.raises(RedeemError, match="names no port"):
        await redeem(
            server="127.0.0.1", dns_port=None, tls_port=None, domain=DOMAIN,
            identity=b"\x01", expires=1, key=bytes(32),
        )  # fmt: skip


def test_exchange_words_are_bounded_and_printable() -> None:
    assert exchange._plain(b"a\x1b[31m\n\xff" + b"x" * 1000).startswith("a�[31m��x")
    assert len(exchange._plain(b"x" * 1000)) == exchange.MAX_EDE_TEXT
