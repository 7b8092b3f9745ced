"""Hostile configuration files: a value or a ConfigError that names the file, nothing else."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from tunnel.config import ConfigError, host_from_tables, parse_toml, serve_from_tables
from tunnel.spelling import parse_endpoint

TEXTS = 100_000
TABLES = 100_000
ENDPOINTS = 100_000
PATH = Path("config.toml")
VALID = (
    b'[host]\nname = "desk"\nid = "fd00::1"\nlisten = 4500\n[account]\ndomain = "a.example"\n'
    b'[[peer]]\nname = "gw.example"\nid = "fd00::2"\nendpoint = "192.0.2.1:4500"\npsk_file = "k"\n'
    b'[serve]\nlisten = ["0.0.0.0:53"]\n'
    b'[[serve.account]]\ndomain = "a.example"\nsecret_file = "k"\n'
)
PIECES = [b"[", b"]", b"=", b'"', b"'''", b"\n", b".", b"1979-05-27", b"inf", b"0x", b"\xff", b"{}"]
ODD: list[Any] = [None, True, -1, 2**70, 1.5, "", "x" * 300, "::", [], [[]], {}, {"a": {}}, "\0"]


def generator_with_printed_seed() -> random.Random:
    seed = int(os.environ.get("FUZZ_SEED", "6281"))
    print(f"seed {seed}")
    return random.Random(seed)


def test_hostile_text_is_read_or_refused() -> None:
    generator = generator_with_printed_seed()
    for _ in range(TEXTS):
        text = bytearray(VALID[: generator.randrange(1, 120)])
        for _ in range(generator.randrange(1, 4)):
            at = generator.randrange(len(text) + 1)
            text[at : at + generator.randrange(3)] = generator.choice(PIECES)
        try:
            parse_toml(PATH, bytes(text))
        except ConfigError as refusal:
            assert str(refusal).startswith("config.toml")


def test_hostile_tables_are_converted_or_refused() -> None:
    generator = generator_with_printed_seed()
    for _ in range(TABLES):
        tables = parse_toml_once()
        for _ in range(generator.randrange(1, 4)):
            mutate(generator, tables)
        for read in (host_from_tables, serve_from_tables):
            try:
                read(PATH, tables)
            except ConfigError as refusal:
                assert str(refusal).startswith("config.toml")


def parse_toml_once() -> dict[str, Any]:
    """A fresh copy of the valid tables, cheaper than parsing them."""
    return {
        "host": {"name": "desk", "id": "fd00::1", "listen": 4500},
        "account": {"domain": "a.example"},
        "peer": [{"name": "gw.example", "id": "fd00::2", "endpoint": "192.0.2.1", "psk_file": "k"}],
        "serve": {
            "listen": ["0.0.0.0:53"],
            "account": [{"domain": "a.example", "secret_file": "k"}],
        },
    }


def mutate(generator: random.Random, tables: dict[str, Any]) -> None:
    """Changes, adds or removes one value anywhere below ``tables``."""
    place: Any = tables
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = generator.choice(keys)
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and generator.random() < 0.8:
            place = inner
            continue
        if generator.random() < 0.2:
            del place[key]
        elif isinstance(place, dict) and generator.random() < 0.2:
            place[generator.choice(["lissten", "", "\0", "id"])] = generator.choice(ODD)
        else:
            place[key] = generator.choice(ODD)
        return


def test_hostile_endpoints_are_read_or_refused() -> None:
    generator = generator_with_printed_seed()
    letters = "0123456789.:[]abcdefgz%-\0 ٣é"
    for _ in range(ENDPOINTS):
        text = "".join(generator.choices(letters, k=generator.randrange(20)))
        try:
            host, port = parse_endpoint(text, 53)
        except ValueError:
            continue
        assert host
        assert 1 <= port <= 65535
