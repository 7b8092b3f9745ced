"""Fuzz of what IKE can since: fragments, ML-KEM in IKE_INTERMEDIATE and IKE_FOLLOWUP_KE, PPK,
MOBIKE. What a peer can do that has our keys, and what a stranger can do to what stands."""

from __future__ import annotations

import random

from keys.ike.cipher import IntegrityError, MessageCipher, Place, place_of
from keys.ike.errors import IkeError
from keys.ike.fragments import Assembly
from keys.ike.header import Exchange, Header
from keys.ike.informational import Answer
from keys.ike.payloads import Contents, decode_contents, encode_chain
from keys.ike.proposals import Additional, TransformType, choose, decode_sa, encode_sa, offers
from keys.ike.sa_init import wanted
from keys.ike.settings import IkeSettings
from keys.ike.types import Ppk, SendIke
from tests.fuzz.mutate import SEED, mutants
from tests.fuzz.test_fuzz_ike import with_right_length
from tests.keys.ike.net import Net, Side, pair

KEY = bytes(range(36))


def everything() -> tuple[Net, Side, Side]:
    """Two hosts with all extensions in use, small fragments, and every message in ``net.sent``."""
    net, desk, lap = pair(additional=("mlkem768",), fragment_ipv4=400)
    net.connect(desk, lap)
    net.play(3)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(5)
    desk.address = ("203.0.113.7", 4500)
    net.run(desk, desk.ike.move([desk.address], net.now))
    net.play(5)
    assert net.pair_is_up()
    return net, desk, lap


def test_places_and_assemblies_take_a_hundred_thousand_fragments() -> None:
    """Verified fragments with any number, total, padding and size: bounded, and never a crash."""
    rng = random.Random(SEED)
    print(f"FUZZ_SEED={SEED}")
    settings = IkeSettings()
    cipher = MessageCipher("aes128gcm16", KEY[:20])
    header = Header(b"i" * 8, b"r" * 8, Exchange.IKE_AUTH, 1, response=False, initiator=True)
    chain = encode_chain(Contents(nonce=bytes(32)).encode())
    pool = [
        cipher.seal_fragment(header, chain[0], chain[1][: rng.randrange(36)], Place(n, total))
        for total in range(1, 9)
        for n in range(1, total + 1)
    ]
    assembly, now, whole = Assembly(settings), 0.0, 0
    for _ in range(100_000):
        data, message_id = rng.choice(pool), rng.randrange(3)
        now += rng.random() / 10
        place = place_of(data)
        if place is None or not assembly.wants(message_id, place, now):
            continue
        opened = cipher.open_fragment(data)
        try:
            joined = assembly.add(message_id, place, opened, data, octets=100, now=now)
            if joined is not None:
                whole += 1
                decode_contents(joined.opened.payloads())
        except IkeError:
            pass
    assert whole > 100


def test_broken_fragments_are_refused() -> None:
    cipher = MessageCipher("aes128gcm16", KEY[:20])
    header = Header(b"i" * 8, b"r" * 8, Exchange.IKE_AUTH, 1, response=False, initiator=True)
    seeds = [cipher.seal_fragment(header, 40, bytes(60), Place(n, 3)) for n in (1, 2, 3)]
    opened = 0
    for data in mutants(seeds, 60_000):
        data = with_right_length(data)
        if data in seeds or place_of(data) is None:
            continue
        try:
            cipher.open_fragment(data)
            opened += data[28:] not in {seed[28:] for seed in seeds}
        except IntegrityError:
            pass
    assert opened == 0


def test_proposals_with_additional_key_exchanges() -> None:
    """Read or refused, and what is chosen is never more than what we accept."""
    additional = Additional((36, 37))
    table = wanted(IkeSettings())
    seeds = [
        encode_sa(offers(1, b"", table, additional)),
        encode_sa(offers(1, b"", table, additional)[:1]),
    ]
    chosen_some = 0
    for data in mutants(seeds, 60_000):
        try:
            offered = decode_sa(data)
        except IkeError:
            continue
        chosen = choose(offered, 1, 0, table, additional)
        if chosen is None:
            continue
        chosen_some += 1
        methods = [t.id for t in chosen.transforms if t.type >= TransformType.ADDKE1 and t.id]
        assert set(methods) <= {36, 37}
        assert len(methods) == len(set(methods))
    assert chosen_some > 1000


def test_strangers_among_all_extensions() -> None:
    """Broken copies of every message, at a host that stands: nothing moves, nothing grows."""
    net, desk, lap = everything()
    seeds = [d.data for d in net.sent]
    before, inbound = lap.ike.views(), dict(lap.inbound)
    rng = random.Random(SEED)
    for data in mutants(seeds, 60_000):
        data = with_right_length(data) if rng.random() < 0.8 else data
        if data in seeds:
            continue
        source = (f"198.51.100.{rng.randrange(255)}", rng.randrange(1, 65536))
        sent = [c for c in lap.ike.receive(data, source, net.now) if isinstance(c, SendIke)]
        assert len(sent) <= 8  # one message, in fragments
        assert len(lap.ike._ctx) <= net.settings.half_open_limit + 2
    assert lap.ike.views() == before
    assert lap.inbound == inbound
    net.play(60)
    assert net.pair_is_up()
    assert lap.ike._ctx.half_open.total == 0
    assert desk.inbound


def test_a_peer_gone_mad_harms_only_its_own_sa() -> None:
    """Authenticated nonsense in every exchange: an answer or an end, no crash, nothing left."""
    rng = random.Random(SEED)
    net, desk, lap = everything()
    sa = desk.ike._ctx.current(lap.name)
    assert sa is not None
    chains = [encode_chain(contents.encode()) for contents in nonsense(net, desk, lap)]
    rounds = 0
    for body in mutants([chain for _, chain in chains], 8_000):
        first = rng.choice(chains)[0] if rng.random() < 0.9 else rng.randrange(256)
        sa = desk.ike._ctx.current(lap.name)
        if sa is None or sa._seal is None or lap.ike._ctx.current(desk.name) is None:
            net, desk, lap = pair(additional=("mlkem768",), seed=rounds)
            net.connect(desk, lap)
            net.play(1)
            sa = desk.ike._ctx.current(lap.name)
            assert sa is not None
            rounds += 1
        assert sa._seal is not None
        exchange = rng.choice([36, 37, 44])
        header = sa.header(Exchange(exchange), sa.window.next_id, response=False)
        data = sa._seal.seal_chain(header, first, body)
        source = (f"203.0.113.{rng.randrange(1, 255)}", rng.randrange(0, 65536))
        lap.ike.receive(data, rng.choice([desk.address, source]), net.now)
        sa.window.next_id += 1
        assert len(lap.ike._ctx) <= 4
        assert len(lap.ike._ctx._child_spis) <= 8
    assert rounds > 5


def nonsense(net: Net, desk: Side, lap: Side) -> list[Contents]:
    """Requests of all kinds, as they would be sent."""
    from keys.ike.create_child import CreateChild
    from keys.ike.mobike import Announce, UpdateAddresses
    from keys.ike.rekey_ike import RekeyIke

    sa = desk.ike._ctx.current(lap.name)
    assert sa is not None
    tasks = (CreateChild(sa.active_child()), RekeyIke(), UpdateAddresses(), Announce())
    made = [task.request(sa, net.now) for task in tasks]
    assert isinstance(Answer().contents, Contents)
    return [contents for contents in made if contents is not None]


def test_ppk_notifications_of_any_kind_let_nobody_in() -> None:
    """The initiator's proof is mixed up by mutation of what it sends; only the right one passes."""
    rng = random.Random(SEED)
    ups = 0
    for number in range(300):
        net = Net(seed=number)
        names = ("desk.alice.example", "lap.alice.example")
        right = rng.random() < 0.2
        net.ppks[names] = Ppk(b"one", b"\1" * 32, required=True)
        secret = b"\1" * 32 if right else rng.randbytes(32)
        net.ppks[names[::-1]] = Ppk(b"one" if rng.random() < 0.7 or right else b"two", secret)
        desk, lap = net.add(names[0], 1), net.add(names[1], 2)
        net.connect(desk, lap)
        net.play(1)
        assert net.pair_is_up() is right
        ups += right
    assert ups > 20
