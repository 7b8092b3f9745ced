"""TSIG against 100,000 hostile messages: always a verdict, and never a wrong "verified"."""

from __future__ import annotations

from discovery import tsig
from discovery.types import TsigKey
from tests.discovery.client.test_tsig import KEY, NOW, RESPONSE, UPDATE, UPDATE_MAC, finder
from tests.fuzz.mutate import mutants

INPUTS = 100_000


def test_every_message_gets_a_verdict_and_an_answerable_one() -> None:
    stranger = TsigKey("x.example.", bytes(32))
    signed = [
        tsig.sign(UPDATE, KEY, NOW)[0],
        tsig.sign(UPDATE, stranger, NOW)[0],
        tsig.sign(UPDATE, KEY, NOW + 9999)[0],
        tsig.sign(RESPONSE, KEY, NOW, request_mac=UPDATE_MAC)[0],
        UPDATE,
    ]
    verdicts = {"Verified": 0, "NoTsig": 0, "TsigFailure": 0}
    for number, wire in enumerate(mutants(signed, INPUTS)):
        request_mac = UPDATE_MAC if number % 2 else b""
        verdict = tsig.verify(wire, finder(), NOW, request_mac=request_mac)
        verdicts[type(verdict).__name__] += 1
        if isinstance(verdict, tsig.Verified):
            # Only what the MAC does not cover may differ: the header's ID, and the case of names.
            assert verdict.message[2:].lower() in (UPDATE[2:].lower(), RESPONSE[2:].lower())
        if isinstance(verdict, tsig.TsigFailure):
            assert verdict.rcode in (tsig.FORMERR, tsig.NOTAUTH)
            answered = tsig.attach_error(RESPONSE, verdict, NOW)
            assert len(answered) <= len(RESPONSE) + 700
    assert min(verdicts.values()) > 0
