"""The parsers of ``keys``, each alone.

Every function takes any octets. It lets the errors pass that the parser names, checks what was
read, and wherever we can write as well, that writing and reading again gives the same.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from ipaddress import IPv6Address

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from keys import ca, signing
from keys.ca import Authority, AuthorityError
from keys.ike import groups, signature
from keys.ike.certificates import CertificateError, Trust, check, names_in
from keys.ike.cipher import IntegrityError, MessageCipher, Opened, Place, place_of
from keys.ike.cookie import demand, glance
from keys.ike.errors import IkeError
from keys.ike.fragments import Assembly, room, seal
from keys.ike.header import Exchange, Header, HeaderError, decode_header
from keys.ike.notify import Notify, NotifyType, decode_notify
from keys.ike.payloads import (
    Authentication,
    Contents,
    Delete,
    Identity,
    KeyExchange,
    decode_chain,
    decode_contents,
    encode_chain,
)
from keys.ike.proposals import (
    ADDITIONAL_TYPES,
    METHOD,
    Additional,
    additional_methods,
    answers,
    choose,
    decode_sa,
    describe,
    encode_sa,
    offers,
)
from keys.ike.sa_init import wanted
from keys.ike.selectors import (
    claimed_host,
    covers,
    decode_selectors,
    describe_traffic,
    encode_selectors,
    host,
    widest,
)
from keys.ike.selectors import describe as describe_selectors
from keys.ike.settings import IkeSettings
from keys.ike.signature import SignatureError
from keys.ike.window import Echoes, Window
from keys.issuer import Issuer, Ledger
from keys.signing import SigningError

UNIX = 1_800_000_000
NAME = "desk.alice.example"
SETTINGS = IkeSettings()
ADDITIONAL = Additional((36, 37))
HEADER = Header(b"i" * 8, b"r" * 8, Exchange.IKE_AUTH, 1, response=False, initiator=True)
_RANDOM = random.Random(7296).randbytes

# --- IKE: the codec -------------------------------------------------------------------------------


def header_seeds() -> Sequence[bytes]:
    return [HEADER.encode(), Header(bytes(8), b"r" * 8, 34, 0, True, False, 41, 29).encode() + b"x"]


def header(data: bytes) -> None:
    try:
        read = decode_header(data)
    except HeaderError:
        return
    assert read.length == len(data)
    again = read.encode()
    # Reserved flags are ignored (RFC 7296 §3.1), all else is kept.
    assert again[:19] == data[:19] and again[20:28] == data[20:28]


def notify_seeds() -> Sequence[bytes]:
    made = [Notify(NotifyType.REKEY_SA, b"", 3, b"spi!"), Notify(NotifyType.COOKIE, bytes(16))]
    return [one.encode() for one in made]


def notify(data: bytes) -> None:
    try:
        read = decode_notify(data)
    except ValueError:
        return
    assert read.encode() == data
    assert read.name and read.is_error is (read.kind < 16384)


def selector_seeds() -> Sequence[bytes]:
    one = host(IPv6Address("fd00::1"))
    return [encode_selectors(one), encode_selectors(one * 3), b"\1\0\0\0\7\0\0\x10" + bytes(12)]


def selectors(data: bytes) -> None:
    try:
        read = decode_selectors(data)
    except IkeError:
        return
    assert len(read) <= 64 and all(one.first <= one.last for one in read)
    assert len(describe_selectors(read)) < 400
    claimed = claimed_host(read)
    assert claimed in {one.first for one in read} | {IPv6Address(0)}
    here = IPv6Address("fd00::1")
    traffic = widest(read, (*read, *host(here)), claimed, here)
    if traffic is not None:
        assert covers(read, (*read, *host(here)), claimed, here, traffic)
        describe_traffic(traffic)
    if read:
        assert decode_selectors(encode_selectors(read)) == read


def proposal_seeds() -> Sequence[bytes]:
    table = wanted(SETTINGS)
    return [
        encode_sa(offers(1, b"", table, ADDITIONAL)),
        encode_sa(offers(1, bytes(8), table, Additional())),
        encode_sa(offers(3, b"spi!", table, ADDITIONAL)[:1]),
    ]


def proposals(data: bytes) -> None:
    try:
        read = decode_sa(data)
    except IkeError:
        return
    assert 1 <= len(read) <= 32
    describe(read)
    if all(t.known for p in read for t in p.transforms):
        assert decode_sa(encode_sa(read)) == read
    table = wanted(SETTINGS)
    for protocol, octets in ((1, 0), (1, 8), (3, 4)):
        for additional in (Additional(), ADDITIONAL, Additional((36,), required=True)):
            chosen = choose(read, protocol, octets, table, additional)
            if chosen is None:
                continue
            methods = additional_methods(chosen)
            assert set(methods) <= set(additional.methods) and len(set(methods)) == len(methods)
            assert methods or not additional.required
            kinds = [t.type for t in chosen.transforms]
            assert len(kinds) == len(set(kinds)) and set(table) <= set(kinds)
            offered = next(p for p in read if choose((p,), protocol, octets, table, additional))
            assert set(chosen.transforms) <= set(offered.transforms)
            if all(t.id or t.type not in (3, 4, *ADDITIONAL_TYPES) for t in offered.transforms):
                assert answers(chosen, (offered,))


def full_contents() -> Contents:
    """Every payload that we write."""
    return Contents(
        sa=offers(1, b"", wanted(SETTINGS), ADDITIONAL),
        ke=KeyExchange(31, bytes(32)),
        idi=Identity.fqdn(NAME),
        idr=Identity.fqdn("lap.alice.example"),
        certs=[b"a certificate", b"another"],
        certreq=bytes(20),
        auth=Authentication(14, b"\x07" + bytes(20)),
        nonce=bytes(32),
        tsi=host(IPv6Address("fd00::1")),
        tsr=host(IPv6Address("fd00::2")),
        notifies=[Notify(16384), Notify(16393, b"", 3, b"spi!"), Notify(16388, bytes(20))],
        deletes=[Delete(3, (b"spi1", b"spi2")), Delete(1)],
    )


def payload_seeds() -> Sequence[bytes]:
    full = full_contents()
    parts = [
        Contents(sa=full.sa, ke=full.ke, nonce=full.nonce, notifies=full.notifies),
        Contents(idi=full.idi, idr=full.idr, certs=full.certs, certreq=b"", auth=full.auth),
        Contents(deletes=full.deletes),
        full,
    ]
    chains = [encode_chain(one.encode()) for one in parts]
    unknown = bytes((200, 0, 0x80, 0, 5, 1))
    return [bytes((first,)) + chain for first, chain in chains] + [unknown]


def payloads(data: bytes) -> None:
    if not data:
        return
    try:
        read = decode_contents(decode_chain(data[0], data[1:]))
    except IkeError as error:
        assert len(str(error)) < 400
        assert decode_notify(error.notify().encode()).is_error
        return
    if read.idi:
        read.idi.describe()
    read.error()
    if read.sa and not all(t.known for p in read.sa for t in p.transforms):
        return
    read.tsi, read.tsr = read.tsi or None, read.tsr or None  # all of them narrowed away
    again = decode_contents(decode_chain(*encode_chain(read.encode())))
    assert again == read


def glance_seeds() -> Sequence[bytes]:
    full, cookie = full_contents(), Notify(NotifyType.COOKIE, bytes(17))
    parts = [
        Contents(sa=full.sa, ke=full.ke, nonce=full.nonce),
        Contents(sa=full.sa, ke=full.ke, nonce=full.nonce, notifies=[cookie, *full.notifies]),
    ]
    chains = [encode_chain(one.encode()) for one in parts]
    return [bytes((first,)) + chain for first, chain in chains]


def glances(data: bytes) -> None:
    """What a flood is answered by: it must see what the whole parser sees."""
    if not data:
        return
    seen = glance(bytes(16) + data[:1] + bytes(11) + data[1:])
    try:
        read = decode_contents(decode_chain(data[0], data[1:]))
    except IkeError:
        return  # a glance reads less, and may take what is refused later
    if not (read.sa and read.ke and read.nonce):
        assert seen is None
        return
    assert seen is not None and seen.nonce == read.nonce
    cookie = next((n.data for n in read.notifies if n.kind == NotifyType.COOKIE and n.data), b"")
    assert seen.cookie == cookie
    assert len(demand(bytes(8), bytes(17))) < 28 + len(data)


# --- IKE: what is sealed --------------------------------------------------------------------------

_CIPHERS = ("aes128gcm16", "aes256gcm16", "chacha20poly1305")


def _cipher(number: int) -> MessageCipher:
    suite = _CIPHERS[number % 3]
    return MessageCipher(suite, bytes(range(20 if suite == "aes128gcm16" else 36)))


def sealed_seeds() -> Sequence[bytes]:
    first, chain = encode_chain(Contents(nonce=bytes(32)).encode())
    return [bytes((number, first, 0)) + chain for number in range(6)]


def sealed(data: bytes) -> None:
    """Octets become the plaintext of a message, its padding too: verified, whatever they are.
    With the fourth bit of the first octet set, they are the message, and never verify."""
    if len(data) < 3:
        return
    cipher = _cipher(data[0])
    if data[0] & 8:
        for opens in (cipher.open, cipher.open_fragment):
            try:
                opens(data[3:])
            except IntegrityError:
                continue
            raise AssertionError("it verified")
        return
    if data[0] & 4:
        place = place_of(bytes(28 + 4) + data[1:5] + bytes(60))
        message = cipher.seal_fragment(HEADER, data[1], data[3:], place or Place(1, 1))
        opened = cipher.open_fragment(message)
    else:
        message = cipher.seal_chain(HEADER, data[1], data[3:])
        opened = cipher.open(message)
    assert opened == Opened(data[1], 0, data[3:] + b"\0")
    for one in (opened, Opened(data[1], data[2], data[3:])):
        with contextlib.suppress(IkeError):
            decode_contents(one.payloads())
    at = 16 + data[2] % (len(message) - 16)
    broken = message[:at] + bytes((message[at] ^ 1,)) + message[at + 1 :]
    try:
        (cipher.open_fragment if data[0] & 4 else cipher.open)(broken)
    except IntegrityError:
        return
    raise AssertionError("a changed message verified")


def fragment_seeds() -> Sequence[bytes]:
    whole = bytes((0, 1, 0, 3, 9, 0, 0, 2, 0, 3, 9, 0, 0, 3, 0, 3, 9, 0))
    return [whole, whole[6:] + whole, bytes((0, 1, 0, 1, 0, 200, 1, 0, 128, 0, 128, 40))]


def fragments(data: bytes) -> None:
    """Six octets are a verified fragment: message id, number, total, size, seconds."""
    assembly, now = Assembly(SETTINGS), 0.0
    for at in range(0, len(data) - 5, 6):
        message_id, number, high, low, size, wait = data[at : at + 6]
        place, now = Place(number, high << 8 | low), now + wait / 8
        if not 1 <= place.number <= place.total or not assembly.wants(message_id % 3, place, now):
            continue
        assert place.total <= SETTINGS.fragments_limit
        piece = Opened(40, 0, bytes(size * 8) + bytes((size % 4,)))
        try:
            joined = assembly.add(message_id % 3, place, piece, data, octets=4000, now=now)
        except IkeError:
            continue
        if joined is not None:
            assert len(joined.opened.plain) <= 4001 and assembly.until is None
        elif assembly.until is not None:
            assert now < assembly.until <= now + SETTINGS.reassembly_timeout
            assert assembly._pieces is not None and assembly._pieces.octets <= 4000
    assembly.forget(now + SETTINGS.reassembly_timeout)
    assert assembly.until is None
    _cut_and_join(data)


def _cut_and_join(chain: bytes) -> None:
    """What we cut, we join to the same."""
    cipher, limit = _cipher(len(chain)), 80 + len(chain) % 64
    assembly, joined = Assembly(SETTINGS), None
    assert room(SETTINGS, ("192.0.2.1", 500)) < room(SETTINGS, ("fd00::1", 500))
    messages = seal(cipher, HEADER, 40, chain, limit)
    assert all(len(one) <= limit for one in messages)
    for one in reversed(messages) if len(messages) > 1 else ():
        place = place_of(one)
        assert place is not None and assembly.wants(1, place, 0.0)
        opened = cipher.open_fragment(one)
        joined = assembly.add(1, place, opened, one, octets=65535, now=0.0)
    if len(messages) > 1:
        assert joined is not None and joined.opened.chain == chain
        assert joined.head == messages[0] and joined.opened.first == 40


def window_seeds() -> Sequence[bytes]:
    return [bytes((0, 1, 2, 0, 3, 4, 5)), bytes((0, 9, 3, 9, 3, 9, 3)), bytes((4, 5, 4, 6, 5, 4))]


def window(data: bytes) -> None:
    """Each octet is one thing that happens to a window; it must agree with a model of it."""
    one, echoes, now = Window(SETTINGS, lambda: 0.5), Echoes(), 0.0
    asked, answered, tries = 0, None, 0
    for octet in data:
        now += (octet >> 4) / 2
        outstanding = one.outstanding
        match octet % 8:
            case 0 if outstanding is None:
                tries = 1 + (octet >> 4) % 4
                one.sent((bytes((octet,)),), now, tries)
                tries -= 1
            case 1:
                done = one.answered(octet >> 4)
                wanted_id = outstanding is not None and outstanding.message_id == octet >> 4
                assert (done is outstanding and done is not None) is wanted_id
            case 2 if outstanding is not None:
                one.again((b"again", bytes((octet,))), now)
            case 3:
                again = one.due(now)
                if again is not None:
                    assert outstanding is not None and tries > 0 and again == outstanding.data
                    tries -= 1
                assert not (one.gave_up(now) and tries)
            case 4:
                one.accept(bytes((octet,)))
                asked, answered = asked + 1, None
                assert one.is_repeat(bytes((octet,))) and one.last is None
            case 5 if asked:
                answered = (b"answer", bytes((octet,)))
                one.responded(answered)
            case 6:
                echoes.keep(one.last, now)
                assert len(echoes._answers) <= Echoes.LIMIT
            case _:
                found = echoes.find(bytes((octet & 0xF7,)), now)
                assert found is None or len(found) == 2
        assert one.expected == asked and one.answer == answered
        assert (one.next_id == 0) or one.outstanding is None or tries >= 0
    assert echoes.find(b"", now + Echoes.SECONDS) is None and not echoes._answers


def exchange_seeds() -> Sequence[bytes]:
    made = [groups.generate(number, _RANDOM) for number in _METHODS]
    ciphertexts = [groups.encapsulate(key.group, key.public)[0] for key in made[2:]]
    publics = [key.public for key in made]
    return [bytes((n % 4,)) + one for n, one in enumerate([*publics, *publics[:2], *ciphertexts])]


_METHODS = (31, 19, METHOD["mlkem768"], METHOD["mlkem1024"])
_OURS = [groups.generate(number, _RANDOM) for number in _METHODS]


def exchanges(data: bytes) -> None:
    """Public values and ciphertexts of every method."""
    if not data:
        return
    key, value = _OURS[data[0] % 4], data[1:]
    for use in (
        lambda: len(key.shared(value)) == 32,
        lambda: len(groups.respond(key.group, value, _RANDOM, groups.encapsulate)[1]) == 32,
    ):
        try:
            assert use()
        except IkeError:
            continue


# --- Signatures and certificates ------------------------------------------------------------------

AUTHORITY = Authority.new("alice.example", UNIX, _RANDOM)
_KEY = ca.new_key(_RANDOM)
_KEYS = (_KEY, ec.derive_private_key(6281, ec.SECP256R1()), rsa.generate_private_key(65537, 2048))
_EVERY_HASH = frozenset(signature.HashId)
_REQUEST = ca.request(_KEY, NAME)
_CERTIFICATE = AUTHORITY.issue(ca.read_request(_REQUEST), UNIX, _RANDOM)
_TRUST = Trust((AUTHORITY.certificate,))
_JOIN_KEY = AUTHORITY.join_key(b"id", UNIX)


def signature_seeds() -> Sequence[bytes]:
    signed = [signature.sign(key, _EVERY_HASH, b"octets") for key in _KEYS]
    made = [bytes((number,)) + one for number, one in enumerate(signed)]
    return [*made, *(bytes((number,)) + blob[1:] for number, blob in enumerate(made))]


def signatures(data: bytes) -> None:
    """AUTH data of method 14 for a key of each kind: what verifies is what we signed."""
    if not data:
        return
    key = _KEYS[data[0] % 3]
    hashes = signature.decode_hashes(data[1:])
    assert hashes <= _EVERY_HASH and hashes == signature.decode_hashes(
        signature.encode_hashes(sorted(hashes))
    )
    try:
        signature.verify(key.public_key(), data[1:], b"other octets", "desk")
    except SignatureError as error:
        assert len(str(error)) < 400
        return
    raise AssertionError("a signature over other octets verified")


def certificate_seeds() -> Sequence[bytes]:
    own = _CERTIFICATE.public_bytes(Encoding.DER)
    anchor = AUTHORITY.certificate.public_bytes(Encoding.DER)
    return [b"\0" + own, b"\0" + anchor, b"\1" + own + anchor]


def certificates(data: bytes) -> None:
    """CERT payloads: any chain is refused in words, unless it begins with the one we issued."""
    if not data:
        return
    own = _CERTIFICATE.public_bytes(Encoding.DER)
    chain = {0: [data[1:]], 1: [data[1 : len(own) + 1], data[len(own) + 1 :]]}.get(
        data[0] % 4, [own, data[1:]] if data[0] % 4 == 2 else [data[1:], own]
    )
    try:
        key = check(chain, NAME, _TRUST, UNIX)
    except CertificateError as error:
        assert len(str(error)) < 500 and str(error).isprintable()
        return
    assert chain[0] == own and key == _KEY.public_key()
    assert NAME in names_in(_CERTIFICATE)


def signing_seeds() -> Sequence[bytes]:
    join = signing.seal_join(_JOIN_KEY, b"id", UNIX, _REQUEST, _RANDOM)
    renewal = signing.renewal(_CERTIFICATE.public_bytes(Encoding.DER), _REQUEST)
    refused = signing.write_answer(signing.Refused("no"), None, "x", _RANDOM)
    sealed_no = signing.write_answer(signing.Refused("no"), _JOIN_KEY, "x", _RANDOM)
    return [join, renewal, refused, sealed_no, b"\1R\0\1\2", b"\1J\0"]


def signing_messages(data: bytes) -> None:
    """Requests at an issuer, and answers at a host."""
    issuer = Issuer(AUTHORITY, Ledger(), _RANDOM)
    try:
        answer = issuer.answer(data, UNIX)
    except SigningError:
        answer = b""
    assert len(answer) <= signing.MAX_MESSAGE
    for entry in issuer.ledger.issued:
        assert entry.name == NAME or entry.name.endswith(".alice.example")
    for key in (None, _JOIN_KEY):
        try:
            told = signing.read_answer(data, key, "x")
        except SigningError:
            continue
        if isinstance(told, signing.Refused):
            assert len(told.reason) <= signing.MAX_SENTENCE and told.reason.isprintable()


def request_seeds() -> Sequence[bytes]:
    return [_REQUEST]


def requests(data: bytes) -> None:
    try:
        wanted_name = ca.read_request(data).name
    except AuthorityError:
        return
    assert wanted_name == NAME or data != _REQUEST


def revocation_seeds() -> Sequence[bytes]:
    return [AUTHORITY.revocations({5: UNIX, 2**120: UNIX}, 1, UNIX)]


def revocations(data: bytes) -> None:
    try:
        read = ca.read_revocations(data, AUTHORITY.certificate)
    except AuthorityError:
        return
    assert read == ca.Revocations(1, frozenset({5, 2**120}))
