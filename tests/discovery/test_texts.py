"""Messages of the account in its zone: left, read and removed by whoever holds its key."""

from __future__ import annotations

import random

import pytest

from discovery.client import ClientSettings, ZoneClient
from discovery.held import ZoneAccount
from discovery.records import RecordsError
from discovery.store import MemoryStore
from discovery.texts import MAX_OCTETS, Change
from discovery.types import ClientCommand, SendZone, TextsChanged, TextsFound, TsigKey
from discovery.zone import ZoneServer

DOMAIN = "alice.members.example"
UNIX = 1_800_000_000


class Desk:
    """One client on one server; every answer comes at once."""

    def __init__(self, secret: bytes = bytes(32), server: ZoneServer | None = None) -> None:
        account = ZoneAccount(DOMAIN, bytes(32), bytes(32), lambda _id, _until: bytes(32))
        self.server = server or ZoneServer([account], MemoryStore(), unix=UNIX)
        self.client = ZoneClient(
            domain=DOMAIN,
            label="desk",
            key=TsigKey(DOMAIN, secret),
            random=random.Random(1).randbytes,
            settings=ClientSettings(timeout=5.0),
        )
        self.client.transport_up(0.0, UNIX)

    def run(self, todo: list[ClientCommand]) -> list[ClientCommand]:
        said: list[ClientCommand] = []
        while todo:
            command = todo.pop(0)
            if isinstance(command, SendZone):
                for answer in self.server.handle(command.wire, ("192.0.2.1", 1), "tls", UNIX):
                    todo += self.client.receive(answer, 0.0, UNIX)
            else:
                said.append(command)
        return said

    def read(self, prefix: str) -> list[ClientCommand]:
        return self.run(self.client.read_texts(prefix, 0.0, UNIX))

    def change(self, *changes: Change) -> list[ClientCommand]:
        return self.run(self.client.change_texts("t", changes, 0.0, UNIX))


def test_messages_are_left_read_and_removed_one_by_one() -> None:
    desk = Desk()
    one, two = b"one", bytes(range(256)) * 10
    assert desk.read("_sign") == [TextsFound("_sign", ())]
    done = desk.change(Change("_sign", one, add=True), Change("_sign", two, add=True))
    assert done == [TextsChanged("t")]
    (found,) = desk.read("_sign")
    assert isinstance(found, TextsFound)
    assert set(found.messages) == {one, two}
    assert desk.change(Change("_sign", one), Change("a._sign", one, add=True)) == [
        TextsChanged("t")
    ]
    assert desk.read("_sign") == [TextsFound("_sign", (two,))]
    desk.change(Change("_sign"))
    assert desk.read("_sign") == [TextsFound("_sign", ())]
    assert desk.read("a._sign") == [TextsFound("a._sign", (one,))]


def test_a_message_that_does_not_fit_is_refused_before_it_is_sent() -> None:
    desk = Desk()
    for size in (0, MAX_OCTETS + 1):
        with pytest.raises(RecordsError, match="does not fit"):
            desk.change(Change("_sign", bytes(size), add=True))
    assert desk.change(Change("_sign", bytes(MAX_OCTETS), add=True)) == [TextsChanged("t")]
    assert desk.read("_sign") == [TextsFound("_sign", (bytes(MAX_OCTETS),))]


def test_nobody_else_reads_or_writes() -> None:
    desk = Desk()
    stranger = Desk(bytes([1]) * 32, desk.server)
    stranger.run(stranger.client.read_texts("_sign", 0.0, UNIX))
    stranger.run(stranger.client.change_texts("t", (Change("_sign", b"x", add=True),), 0.0, UNIX))
    said = stranger.client.advance(60.0, UNIX)
    assert any(isinstance(one, TextsFound) and one.reason for one in said)
    assert any(isinstance(one, TextsChanged) and one.reason for one in said)
    assert desk.read("_sign") == [TextsFound("_sign", ())]


def test_a_name_of_the_server_s_own_is_refused_in_words() -> None:
    (refused,) = Desk().change(Change("x._invite", b"x", add=True))
    assert isinstance(refused, TextsChanged)
    assert "the rendezvous refuses to write" in refused.reason


def test_records_that_are_no_messages_are_passed_over() -> None:
    import dns.rdata

    from discovery.texts import read_message

    assert read_message(dns.rdata.from_text("IN", "TXT", '"no base64!"')) is None
    assert read_message(dns.rdata.from_text("IN", "A", "192.0.2.1")) is None
