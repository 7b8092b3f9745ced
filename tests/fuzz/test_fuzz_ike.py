"""Fuzz of IKE: the parsers, and whole endpoints before and after they stand.

Mutated real messages and plain noise, in a loop with a printed seed. Nothing may raise but the
errors that the parsers name, memory stays bounded, and what stands keeps standing.
"""

from __future__ import annotations

import contextlib
import os
import random

from keys.ike.cookie import Glance, glance
from keys.ike.errors import IkeError
from keys.ike.header import HeaderError, decode_header
from keys.ike.notify import NotifyType
from keys.ike.payloads import decode_chain, decode_contents
from keys.ike.types import SendIke
from tests.keys.ike.net import Net, pair

SEED = int(os.environ.get("FUZZ_SEED", "6281"))


def recorded() -> list[bytes]:
    """Every kind of message once."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.run(lap, lap.ike.probe(desk.name, net.now))
    net.play(10)
    net.run(lap, lap.ike.close(desk.name, net.now))
    net.play(5)
    return [d.data for d in net.sent]


def chains() -> list[tuple[int, bytes]]:
    """The payload chains inside them, as plaintext."""
    net, desk, lap = pair()
    plain: list[tuple[int, bytes]] = []
    for side, peer in ((desk, lap), (lap, desk)):
        net.connect(side, peer)
    net.play(2)
    for side, peer in ((desk, lap), (lap, desk)):
        sa = side.ike._ctx.current(peer.name)
        assert sa is not None
        from keys.ike.create_child import CreateChild
        from keys.ike.payloads import encode_chain
        from keys.ike.rekey_ike import RekeyIke

        for task in (CreateChild(sa.active_child()), RekeyIke()):
            contents = task.request(sa, net.now)
            assert contents is not None
            plain.append(encode_chain(contents.encode()))
    for data in (d.data for d in net.sent[:2]):
        plain.append((data[16], data[28:]))
    return plain


def mutated(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(6):
            case 0 if out:
                out[at] = rng.randrange(256)
            case 1 if out:
                out[at] ^= 1 << rng.randrange(8)
            case 2 if out:
                out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 3:
                out[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                del out[at : at + rng.randrange(1, 9)]
            case _:
                del out[at:]
    return bytes(out)


def with_right_length(data: bytes) -> bytes:
    """Past the first check of the header, so that the fuzz reaches deeper."""
    return data[:24] + len(data).to_bytes(4, "big") + data[28:] if len(data) >= 28 else data


def test_the_parsers_refuse_or_read_a_hundred_thousand_inputs() -> None:
    rng = random.Random(SEED)
    print(f"FUZZ_SEED={SEED}")
    seeds = chains()
    read = 0
    for _ in range(100_000):
        first, chain = rng.choice(seeds)
        if rng.random() < 0.1:
            first, chain = rng.randrange(256), rng.randbytes(rng.randrange(80))
        else:
            chain = mutated(rng, chain)
        try:
            decode_contents(decode_chain(first, chain))
            read += 1
        except IkeError:
            pass
    assert 1_000 < read < 99_000


def test_headers_of_noise() -> None:
    rng = random.Random(SEED)
    for _ in range(20_000):
        with contextlib.suppress(HeaderError):
            decode_header(rng.randbytes(rng.randrange(60)))


def hammer(net: Net, seeds: list[bytes], rounds: int) -> None:
    rng = random.Random(SEED)
    print(f"FUZZ_SEED={SEED}")
    side = list(net.sides.values())[1]
    for number in range(rounds):
        data = mutated(rng, rng.choice(seeds))
        if number % 10 == 0:
            data = rng.randbytes(rng.randrange(120))
        elif number % 10 < 8:
            data = with_right_length(data)
        if data in seeds:
            continue  # a fresh message as it was is no attack: it would be believed
        source = (f"198.51.100.{rng.randrange(255)}", rng.randrange(1, 65536))
        commands = side.ike.receive(data, source, net.now)
        assert len([c for c in commands if isinstance(c, SendIke)]) <= 2
        assert len(side.ike._ctx) <= net.settings.half_open_limit + 2


def test_an_endpoint_among_strangers() -> None:
    """Before anything stands: half-open SAs stay bounded, and an honest peer gets in after."""
    net, desk, lap = pair()
    hammer(net, recorded(), 60_000)
    net.play(60)
    assert len(lap.ike._ctx) == 0
    net.connect(desk, lap)
    net.play(5)
    assert net.pair_is_up()


def test_an_endpoint_that_stands() -> None:
    """Messages of the very SA, broken: what stands keeps standing, to the octet."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(10)
    net.run(desk, desk.ike.probe(lap.name, net.now))
    seeds = [d.data for d in net.sent]
    inbound, views = dict(lap.inbound), lap.ike.views()
    hammer(net, seeds, 60_000)
    assert lap.ike.views() == views
    assert lap.inbound == inbound
    net.play(60)
    assert net.pair_is_up()
    net.run(lap, lap.ike.rekey(desk.name, net.now))
    net.play(10)
    assert net.pair_is_up()


def test_fuzz_a_glance_at_a_request() -> None:
    """It never raises, and where the whole request can be read it sees the same."""
    print(f"FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    net, desk, lap = pair(cookie_threshold=0)
    net.connect(desk, lap)
    net.play(2)
    requests = [d.data for d in net.sent if d.kind == "34q"]
    assert glance(requests[0]) and glance(requests[1]).cookie
    seen = 0
    for _ in range(100_000):
        data = with_right_length(mutated(rng, rng.choice(requests)))
        if len(data) < 28:
            continue
        found = glance(data)
        with contextlib.suppress(IkeError):
            contents = decode_contents(decode_chain(data[16], data[28:]))
            if not (contents.sa and contents.ke and contents.nonce):
                continue
            cookie = contents.notify(NotifyType.COOKIE)
            assert found == Glance(contents.nonce, cookie.data if cookie else b""), data.hex()
            seen += 1
    assert seen > 1000
