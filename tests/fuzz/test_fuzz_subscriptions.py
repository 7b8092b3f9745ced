"""Sessions, events and calls gone mad: whatever comes, the client stays true, bounded and alive."""

from __future__ import annotations

import dataclasses
import os
import random
from ipaddress import IPv6Address

from discovery import llq, push, tsig
from discovery.client import ClientSettings
from discovery.dso import DsoMessage, Keepalive, RetryDelay
from discovery.llq import LlqOption
from discovery.lookup import Question
from discovery.nearby import Call, seal, unseal
from discovery.push import Change
from discovery.types import DropZone, HostRecords
from tests.discovery.subscription.scripted import AAAA, DESK, KEY, Script, aaaa
from tests.discovery.subscription.test_llq import ID, QUESTION, established
from tests.discovery.subscription.test_push import live
from tests.fuzz.mutate import SEED, mutants
from tunnel.remembered import RememberedError, from_json, to_json

INPUTS = 100_000
SESSIONS = 5_000  # the parsers of its messages get 100,000 each (test_fuzz_telling)
QUESTION_OF = Question(*QUESTION)
HOST = HostRecords(
    "desk", IPv6Address("fd01::1"), "AutoTunnel-" + "-".join(["01"] * 8), (("192.0.2.7", 4500),)
)


def renew(script: Script) -> Script:
    """The session again, if it has ended."""
    if script.client.step == "push":
        return script
    fresh, _ = live()
    return fresh


def test_no_message_of_a_session_breaks_the_client() -> None:
    changes = (
        Change(DESK, AAAA, 1, 120, aaaa(2)),
        Change(DESK, AAAA, 1, push.REMOVE_ONE, aaaa(1)),
        Change(DESK, 255, 1, push.REMOVE_ALL, None),
    )
    seeds = [
        *push.push_messages(changes),
        *push.push_messages(changes[:1]),
        DsoMessage(0, (Keepalive(60_000, 60_000).tlv(),)).pack(),
        DsoMessage(0, (RetryDelay(1000).tlv(),)).pack(),
        DsoMessage(7, (), True).pack(),
    ]
    script, _ = live()
    dropped = 0
    for wire in mutants(seeds, SESSIONS):
        script.hear(wire)
        dropped += any(isinstance(one, DropZone) for one in script.told)
        assert len(script.told) <= 2 and len(script.sent) <= 4
        script.told.clear()
        script.sent.clear()
        script = renew(script)
    assert SESSIONS // 20 < dropped < SESSIONS


def test_no_event_breaks_the_client_and_no_unsigned_one_is_believed() -> None:
    script = established(ClientSettings(reliable=False, secure=False))
    told: list[bytes] = []
    script.do = lambda commands: None
    script.hear = told.append
    script.event(77, QUESTION, ID, (aaaa(2), False), (aaaa(1), True), signed=False)
    script = established(ClientSettings(reliable=False, secure=False))
    chance = random.Random(SEED)
    for wire in mutants(told, INPUTS):
        signed = len(wire) >= 12 and chance.random() < 0.3
        before = script.client._subscriptions.standing.data(QUESTION_OF)
        script.hear(tsig.sign(wire, KEY, script.unix)[0] if signed else wire)
        if not signed:
            assert script.client._subscriptions.standing.data(QUESTION_OF) == before
        script.told.clear()
        script.sent.clear()
    assert script.client.step == "llq"


def test_no_call_and_no_file_of_a_stranger_gets_through() -> None:
    key = bytes(range(32))
    strings = seal(Call(HOST, 1_800_000_000), key, os.urandom)
    sealed = "".join(strings.values()).encode()
    for octets in mutants([sealed], INPUTS):
        text = octets.decode("latin-1")
        heard = unseal({"s0": text[:240], "s1": text[240:]}, key, "alice.example", 1_800_000_000)
        assert heard is None or heard.records.label == "desk"
    good = to_json("alice.example", [HOST, dataclasses.replace(HOST, label="laptop")])
    refused = 0
    for octets in mutants([good], INPUTS // 5):
        try:
            from_json(octets, "alice.example", 1024)
        except RememberedError:
            refused += 1
    assert refused > INPUTS // 20


def test_every_answer_to_a_long_lived_query_leaves_the_client_asking() -> None:
    chance = random.Random(SEED)
    for _ in range(300):
        script = Script(ClientSettings(secure=False))
        script.subscribe()
        script.up()
        for _ in range(4):
            for wire in script.taken():
                error = chance.choice((0, 0, 0, *range(1, 8)))
                option = LlqOption(
                    chance.choice((llq.SETUP, llq.SETUP, llq.REFRESH, llq.EVENT, 9)),
                    error,
                    chance.choice((0, ID, chance.getrandbits(64))),
                    chance.choice((0, 1, 900, 7200, 0xFFFFFFFF)),
                )
                script.reply(wire, chance.choice((option, None)), (aaaa(1),))
        assert script.client.next_timer() is not None
