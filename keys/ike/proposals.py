"""The SA payload (RFC 7296 §3.3): proposals, transforms, and how one of them is chosen.

::

    Proposal : last 0 / more 2 | 0 | length 2 | number | protocol | SPI size | transforms | SPI | …
    Transform: last 0 / more 3 | 0 | length 2 | type   | 0        | ID 2     | attributes

Suites are named as strongSwan names them; an AEAD needs no integrity transform.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from keys.ike import foreign
from keys.ike.errors import InvalidSyntaxError

_PROPOSAL = struct.Struct(">BBHBBBB")
_TRANSFORM = struct.Struct(">BBHBBH")
_ATTRIBUTE = struct.Struct(">HH")
_KEY_LENGTH = 0x800E  # Key Length in bits, in the short (TV) form
_SHORT_FORM = 0x8000

PROTOCOL_IKE = 1
PROTOCOL_ESP = 3
MAX_PROPOSALS = 32
MAX_TRANSFORMS = 128


class TransformType(IntEnum):
    """What a transform is about (RFC 7296 §3.3.2)."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    KE = 4
    ESN = 5
    ADDKE1 = 6  # additional key exchanges (RFC 9370 §2.2.1), in this order
    ADDKE2 = 7
    ADDKE3 = 8
    ADDKE4 = 9
    ADDKE5 = 10
    ADDKE6 = 11
    ADDKE7 = 12


ADDITIONAL_TYPES = tuple(TransformType(kind) for kind in range(6, 13))


@dataclass(frozen=True, slots=True)
class Transform:
    """One algorithm. ``known`` is false if it carries an attribute that we do not understand,
    which makes just this transform unacceptable (RFC 7296 §3.3.6)."""

    type: int
    id: int
    key_bits: int | None = None
    known: bool = True

    def encode(self, *, last: bool) -> bytes:
        """The transform substructure."""
        attributes = b"" if self.key_bits is None else _ATTRIBUTE.pack(_KEY_LENGTH, self.key_bits)
        length = _TRANSFORM.size + len(attributes)
        return _TRANSFORM.pack(0 if last else 3, 0, length, self.type, 0, self.id) + attributes


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one side offers or chose: a protocol, its SPI, and transforms in order of preference."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]

    def of(self, kind: TransformType) -> Transform | None:
        """The first transform of this type; in a chosen proposal the only one."""
        return next((t for t in self.transforms if t.type == kind), None)

    def encode(self, *, last: bool) -> bytes:
        """The proposal substructure."""
        final = len(self.transforms) - 1
        body = self.spi + b"".join(t.encode(last=i == final) for i, t in enumerate(self.transforms))
        return (
            _PROPOSAL.pack(
                0 if last else 2,
                0,
                _PROPOSAL.size + len(body),
                self.number,
                self.protocol,
                len(self.spi),
                len(self.transforms),
            )
            + body
        )


# --- Names ------------------------------------------------------------------------------------

ENCRYPTION: dict[str, Transform] = {
    "aes128gcm16": Transform(TransformType.ENCR, 20, 128),
    "aes256gcm16": Transform(TransformType.ENCR, 20, 256),
    "chacha20poly1305": Transform(TransformType.ENCR, 28),
}
PRF: dict[str, Transform] = {
    "prfsha256": Transform(TransformType.PRF, 5),
    "prfsha384": Transform(TransformType.PRF, 6),
}
GROUP: dict[str, Transform] = {
    "x25519": Transform(TransformType.KE, 31),
    "ecp256": Transform(TransformType.KE, 19),
}
ESN: dict[bool, Transform] = {
    False: Transform(TransformType.ESN, 0),
    True: Transform(TransformType.ESN, 1),
}
NO_INTEGRITY = Transform(TransformType.INTEG, 0)
NO_KE = Transform(TransformType.KE, 0)

# Methods that may be an additional key exchange: those of GROUP, and ML-KEM, whose messages are
# too long for IKE_SA_INIT (RFC 9370 §2.2, draft-ietf-ipsecme-ikev2-mlkem §2.3).
METHOD: dict[str, int] = {name: transform.id for name, transform in GROUP.items()} | {
    "mlkem768": 36,
    "mlkem1024": 37,
}
METHOD_NAMES: dict[int, str] = {ident: name for name, ident in METHOD.items()}

_NAMES: dict[Transform, str] = {
    transform: name for table in (ENCRYPTION, PRF, GROUP) for name, transform in table.items()
} | {ESN[True]: "esn", ESN[False]: "noesn"}


def name_of(transform: Transform) -> str:
    """The strongSwan name of a transform, or its numbers."""
    if transform in _NAMES:
        return _NAMES[transform]
    if transform.type in ADDITIONAL_TYPES:
        method = METHOD_NAMES.get(transform.id, str(transform.id)) if transform.id else "none"
        return f"ke{transform.type - TransformType.ADDKE1 + 1}_{method}"
    named = foreign.name(transform.type, transform.id, transform.key_bits)
    if named is not None:
        return named
    bits = "" if transform.key_bits is None else f"-{transform.key_bits}"
    return f"transform {transform.type}/{transform.id}{bits}"


def describe(proposals: Iterable[Proposal]) -> str:
    """What was offered, for a sentence, kept short: one of each type, as it was ordered, like
    ``aes256gcm16/aes128gcm16-prfsha256-x25519/ecp256 or …``."""
    texts = [_describe_one(proposal) for proposal in proposals]
    return " or ".join(texts[:4]) or "nothing"


def _describe_one(proposal: Proposal) -> str:
    names: dict[int, list[str]] = {}
    for transform in proposal.transforms[:24]:
        names.setdefault(transform.type, []).append(name_of(transform))
    return "-".join("/".join(names[kind]) for kind in sorted(names))


# --- Codec ------------------------------------------------------------------------------------


def encode_sa(proposals: Sequence[Proposal]) -> bytes:
    """The body of an SA payload."""
    final = len(proposals) - 1
    return b"".join(p.encode(last=i == final) for i, p in enumerate(proposals))


def decode_sa(body: bytes) -> tuple[Proposal, ...]:
    """Reads the body of an SA payload; raises InvalidSyntaxError."""
    proposals: list[Proposal] = []
    more = True
    while more:
        more, proposal, body = _decode_proposal(body)
        proposals.append(proposal)
        if len(proposals) > MAX_PROPOSALS:
            raise InvalidSyntaxError(f"an SA payload holds more than {MAX_PROPOSALS} proposals")
    if body:
        raise InvalidSyntaxError("octets follow the last proposal of an SA payload")
    return tuple(proposals)


def _decode_proposal(data: bytes) -> tuple[bool, Proposal, bytes]:
    if len(data) < _PROPOSAL.size:
        raise InvalidSyntaxError("a proposal is shorter than its header")
    mark, _, length, number, protocol, spi_size, count = _PROPOSAL.unpack_from(data)
    if mark not in (0, 2) or not _PROPOSAL.size + spi_size <= length <= len(data):
        raise InvalidSyntaxError("a proposal's length or last mark is wrong")
    spi = data[_PROPOSAL.size : _PROPOSAL.size + spi_size]
    rest = data[_PROPOSAL.size + spi_size : length]
    transforms: list[Transform] = []
    for index in range(count):
        if index >= MAX_TRANSFORMS:
            raise InvalidSyntaxError(f"a proposal holds more than {MAX_TRANSFORMS} transforms")
        last, transform, rest = _decode_transform(rest)
        if last != (index == count - 1):
            raise InvalidSyntaxError("a proposal's transform count is wrong")
        transforms.append(transform)
    if rest:
        raise InvalidSyntaxError("octets follow the last transform of a proposal")
    return mark == 2, Proposal(number, protocol, spi, tuple(transforms)), data[length:]


def _decode_transform(data: bytes) -> tuple[bool, Transform, bytes]:
    if len(data) < _TRANSFORM.size:
        raise InvalidSyntaxError("a transform is shorter than its header")
    mark, _, length, kind, _, ident = _TRANSFORM.unpack_from(data)
    if mark not in (0, 3) or not _TRANSFORM.size <= length <= len(data):
        raise InvalidSyntaxError("a transform's length or last mark is wrong")
    key_bits, known = _decode_attributes(data[_TRANSFORM.size : length])
    return mark == 0, Transform(kind, ident, key_bits, known), data[length:]


def _decode_attributes(data: bytes) -> tuple[int | None, bool]:
    key_bits: int | None = None
    known = True
    while data:
        if len(data) < _ATTRIBUTE.size:
            raise InvalidSyntaxError("a transform attribute is shorter than its header")
        kind, value = _ATTRIBUTE.unpack_from(data)
        size = _ATTRIBUTE.size if kind & _SHORT_FORM else _ATTRIBUTE.size + value
        if size > len(data):
            raise InvalidSyntaxError("a transform attribute is longer than its transform")
        if kind == _KEY_LENGTH and key_bits is None:
            key_bits = value
        else:
            known = False
        data = data[size:]
    return key_bits, known


# --- Choice -----------------------------------------------------------------------------------

Wanted = Mapping[TransformType, Sequence[Transform]]
"""Per type, what we accept, best first."""


def offer(protocol: int, spi: bytes, wanted: Wanted, number: int = 1) -> Proposal:
    """A proposal that holds all that we accept."""
    transforms = tuple(t for kind in sorted(wanted) for t in wanted[kind])
    return Proposal(number, protocol, spi, transforms)


@dataclass(frozen=True, slots=True)
class Additional:
    """The additional key exchanges that we accept, best first (RFC 9370); with ``required``, a
    proposal without any is refused, which is what stops a downgrade."""

    methods: tuple[int, ...] = ()
    required: bool = False

    def pick(self, kind: int, offered: Sequence[Transform], used: set[int]) -> Transform | None:
        """What we take of one type: each method once (RFC 9370 §2.2.1), else NONE if offered."""
        for method in (*(m for m in self.methods if m not in used), 0):
            transform = Transform(kind, method)
            if transform in offered:
                return transform
        return None


NO_ADDITIONAL = Additional()


def offers(
    protocol: int, spi: bytes, wanted: Wanted, additional: Additional
) -> tuple[Proposal, ...]:
    """All that we accept: with an additional key exchange first, and for peers that know of none
    without, unless it is required."""
    kinds = {TransformType.ADDKE1: [Transform(TransformType.ADDKE1, m) for m in additional.methods]}
    made: list[Wanted] = [{**wanted, **kinds}] if additional.methods else []
    made += [] if additional.required else [wanted]
    return tuple(offer(protocol, spi, one, number) for number, one in enumerate(made, 1))


def additional_methods(chosen: Proposal) -> tuple[int, ...]:
    """The additional key exchanges of a chosen proposal, in the order in which they are done."""
    found = sorted((t.type, t.id) for t in chosen.transforms if t.type in ADDITIONAL_TYPES and t.id)
    return tuple(method for _, method in found)


def choose(
    offered: Iterable[Proposal],
    protocol: int,
    spi_octets: int,
    wanted: Wanted,
    additional: Additional = NO_ADDITIONAL,
) -> Proposal | None:
    """Picks the peer's first acceptable proposal, and in it what we like best of each type.

    A proposal is unacceptable if it lacks a type that we want, or has one that we do not know
    (RFC 7296 §3.3.6). Integrity is fine when it may be NONE, since all our ciphers are AEADs,
    and so is a key exchange that we do not want.
    """
    for proposal in offered:
        if proposal.protocol != protocol or len(proposal.spi) != spi_octets:
            continue
        chosen = _choose_transforms(proposal, wanted, additional)
        if chosen is not None:
            return replace(proposal, transforms=chosen)
    return None


def _choose_transforms(
    proposal: Proposal, wanted: Wanted, additional: Additional
) -> tuple[Transform, ...] | None:
    chosen: list[Transform] = []
    used: set[int] = set()  # key exchange methods
    for kind in sorted({t.type for t in proposal.transforms} | set(wanted)):
        theirs = [t for t in proposal.transforms if t.type == kind and t.known]
        if kind in ADDITIONAL_TYPES:
            pick = additional.pick(kind, theirs, used)
        else:
            ours = next((ours for w, ours in wanted.items() if w == kind), (NO_INTEGRITY, NO_KE))
            pick = next((t for t in ours if t in theirs), None)
        if pick is None:
            return None
        chosen.append(pick)
        used |= {pick.id} if kind >= TransformType.KE and kind != TransformType.ESN else set()
    has_more = any(t.type in ADDITIONAL_TYPES and t.id for t in chosen)
    return tuple(chosen) if has_more or not additional.required else None


def answers(chosen: Proposal, offered: Sequence[Proposal]) -> bool:
    """Whether ``chosen`` is a right answer to ``offered``: one transform of each type that one
    of our proposals holds, and nothing else (RFC 7296 §2.7, "the initiator MUST check")."""
    for proposal in offered:
        if proposal.number != chosen.number or proposal.protocol != chosen.protocol:
            continue
        types = [t.type for t in chosen.transforms if t != NO_INTEGRITY]
        if len(types) == len(set(types)) and set(types) == {t.type for t in proposal.transforms}:
            return all(t in proposal.transforms or t == NO_INTEGRITY for t in chosen.transforms)
    return False
