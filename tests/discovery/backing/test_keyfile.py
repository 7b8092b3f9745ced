"""Key files, as others write them."""

from __future__ import annotations

import random
import subprocess
from base64 import b64decode

import pytest

from discovery.backing.keyfile import KeyFileError, parse
from discovery.types import TsigKey

SECRET = b"0123456789abcdef"
TEXT = "MDEyMzQ1Njc4OWFiY2RlZg=="


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (
            f'key "front.example" {{\nalgorithm hmac-sha512;\nsecret "{TEXT}";\n}};',
            "hmac-sha512",
        ),
        (
            f"# a\nkey front.example. {{ secret {TEXT}; algorithm HMAC-SHA256; }}\n",
            "hmac-sha256",
        ),
        (f"hmac-sha384:Front.Example:{TEXT}\n", "hmac-sha384"),
        (f"front.example:{TEXT}", "hmac-sha256"),
        (f"front.example {TEXT}\n", "hmac-sha256"),
    ],
)
def test_every_form_is_read(text: str, algorithm: str) -> None:
    assert parse(text) == TsigKey("front.example.", SECRET, algorithm)


def test_what_tsig_keygen_writes_is_read() -> None:
    done = subprocess.run(["tsig-keygen", "front.example"], capture_output=True, check=True)
    key = parse(done.stdout.decode())
    assert (key.name, key.algorithm, len(key.secret)) == ("front.example.", "hmac-sha256", 32)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no key"),
        ("one two three four", "no key"),
        (f"hmac-md5:front.example:{TEXT}", "algorithm"),
        ("front.example not-base64!", "base64"),
        ("front.example ====", "base64|no secret"),
        ('key "front.example" { algorithm hmac-sha256; };', "no secret"),
        (f"a..b {TEXT}", "name"),
    ],
)
def test_what_is_no_key_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(KeyFileError, match=words) as refused:
        parse(text)
    assert TEXT not in str(refused.value)


def test_any_text_is_read_or_refused() -> None:
    chance = random.Random(8945)
    pool = [*"{};:#\n", "key", '"a.b"', "algorithm", "secret", "hmac-sha256", TEXT]
    outcomes = {True: 0, False: 0}
    for _ in range(100_000):
        try:
            key = parse(" ".join(chance.choices(pool, k=chance.randrange(1, 12))))
            assert key.secret == b64decode(TEXT) or key.secret
            outcomes[True] += 1
        except KeyFileError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 10
