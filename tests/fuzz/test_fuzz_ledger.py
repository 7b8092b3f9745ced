"""Fuzz of what issuers tell each other: vouchers for certificates, behind their signature."""

from __future__ import annotations

import json
import secrets

from keys.ca import Authority
from keys.issuer import Entry, Issuer, Ledger, entry_of
from tests.fuzz.mutate import mutants

ENTRIES = (
    Entry("1f", "desk.a.example", "00" * 32, 2_000_000_000, "ab" * 16),
    Entry("2" * 39, "laptop.a.example", "ff" * 32, 2_100_000_000),
)
HOSTILE = (
    b"[" * 100_000,
    b"{}",
    b"null",
    b'["1","a","b",1]',
    b'["1","a","b",true,""]',
    b'["1","a","b",1e400,""]',
    b'["01","a","b",1,""]',
    b'[1,"a","b",1,""]',
    b"\xff\xfe",
)


def said(entry: Entry) -> bytes:
    issuer = Issuer(
        Authority.new("a.example", 1, secrets.token_bytes), Ledger(), secrets.token_bytes
    )
    voucher = issuer.voucher(entry)
    assert issuer.read_voucher(voucher) == entry
    return voucher[64:]


def test_fuzz_an_entry_is_read_or_refused() -> None:
    seeds = [said(entry) for entry in ENTRIES]
    assert [entry_of(text) for text in seeds] == list(ENTRIES)
    read = 0
    for text in (*HOSTILE, *mutants(seeds, 100_000)):
        try:
            entry = entry_of(text)
        except ValueError:
            continue
        read += 1
        ledger = Ledger([entry])
        assert Ledger.from_json(ledger.to_json()) == ledger, "what is read can be written"
        json.dumps(entry.name)
    assert read > 1000
