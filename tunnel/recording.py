"""A recording of a node: every call into it and all that it drew by chance, to be played again.

A node is pure: the same calls with the same times and the same random octets give the same
commands. So a recording holds the calls in order, each with its arguments, its times, what the node
drew meanwhile, and a digest of the commands that it gave; :func:`play` makes the calls again on a
fresh node and compares. Nothing else is needed to see, later and elsewhere, why it did what it did.

What a recording holds is secret: IKE messages together with the octets their keys were made from.
:mod:`tunnel.io.recording` seals it. Arguments are MessagePack, typed by the node's own signatures.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv6Address
from typing import Any, TypeAlias, get_type_hints

import dns.exception
import dns.name
import dns.rdata
import msgspec

from keys.ike import groups
from keys.ike.errors import InvalidSyntaxError
from tunnel.commands import Command
from tunnel.node import Node

_TIMES = ("now", "unix")
_DIGEST = 16  # octets
_UNREADABLE = (msgspec.MsgspecError, dns.exception.DNSException, ValueError, RecursionError)

Draw: TypeAlias = bytes | tuple[bytes, bytes] | None
"""Random octets; or ciphertext and secret of an ML-KEM encapsulation, ``None`` if it was refused
(decision 0010)."""


class ReplayError(Exception):
    """The recording cannot be played, or the node did something else; the text says what."""


class Call(msgspec.Struct, array_like=True, frozen=True):
    """One call. ``method`` is empty for what was drawn while the node was made."""

    method: str
    now: float
    unix: int
    arguments: bytes
    draws: tuple[Draw, ...]
    digest: bytes


class Recorder:
    """Gives a node its random octets and hears of each call; ``write`` gets one item after the
    other. It is to be told of every call that can change the node, right after it."""

    def __init__(
        self,
        random: Callable[[int], bytes],
        write: Callable[[bytes], None],
        encapsulate: groups.Encapsulate = groups.encapsulate,
    ) -> None:
        self._random, self._encapsulate, self._write = random, encapsulate, write
        self._draws: list[Draw] = []

    def random(self, size: int) -> bytes:
        """For the node, its zone client and its issuer."""
        drawn = self._random(size)
        self._draws.append(drawn)
        return drawn

    def encapsulate(self, method: int, public: bytes) -> tuple[bytes, bytes]:
        """For the node. Raises as :func:`keys.ike.groups.encapsulate`."""
        try:
            drawn = self._encapsulate(method, public)
        except InvalidSyntaxError:
            self._draws.append(None)
            raise
        self._draws.append(drawn)
        return drawn

    def made(self) -> None:
        """The node is made."""
        self.called("", (), 0.0, 0, [])

    def called(
        self,
        method: str,
        arguments: tuple[Any, ...],
        now: float,
        unix: int,
        commands: list[Command],
    ) -> None:
        """The node was called, and gave ``commands``."""
        draws, self._draws = tuple(self._draws), []
        call = Call(method, now, unix, encode(arguments), draws, digest(commands))
        self._write(msgspec.msgpack.encode(call))


class Player:
    """Gives a node what was drawn in the recording. Raises :class:`ReplayError` where the node
    wants something else."""

    def __init__(self) -> None:
        self._draws: list[Draw] = []

    def random(self, size: int) -> bytes:
        """For the node, its zone client and its issuer."""
        drawn = self._next()
        if not isinstance(drawn, bytes) or len(drawn) != size:
            raise ReplayError(f"it wants {size} random octets where the recording has none")
        return drawn

    def encapsulate(self, method: int, public: bytes) -> tuple[bytes, bytes]:
        """For the node."""
        drawn = self._next()
        if drawn is None:
            raise InvalidSyntaxError(f"a key of method {method} and {len(public)} octets")
        if not isinstance(drawn, tuple):
            raise ReplayError("it encapsulates where the recording does not")
        return drawn

    def give(self, draws: Iterable[Draw]) -> None:
        """What the next call draws."""
        self._draws = list(draws)

    def left(self) -> int:
        """How much of that it did not draw."""
        return len(self._draws)

    def _next(self) -> Draw:
        if not self._draws:
            raise ReplayError("it draws more random octets than in the recording")
        return self._draws.pop(0)


@dataclass(frozen=True, slots=True)
class Played:
    """One call was made again, with the same outcome."""

    number: int
    call: Call
    commands: list[Command]


def play(make: Callable[[Player], Node], items: Iterable[bytes]) -> Iterator[tuple[Node, Played]]:
    """Makes the recorded calls on the node that ``make`` makes, one for each turn of the iterator.

    Raises :class:`ReplayError` at the first call whose commands are others.
    """
    player, node = Player(), None
    for number, item in enumerate(items):
        try:
            call = msgspec.msgpack.decode(item, type=Call)
        except _UNREADABLE as problem:
            raise ReplayError(f"item {number} is no call ({problem})") from None
        player.give(call.draws)
        if not call.method:
            node = make(player)
            continue
        if node is None:
            raise ReplayError("the recording does not begin with the making of a node")
        where = f"call {number} ({call.method})"
        try:
            commands = _repeat(node, call)
        except ReplayError as problem:
            raise ReplayError(f"{where}: {problem}") from None
        if digest(commands) != call.digest:
            raise ReplayError(f"{where} gave other commands than in the recording")
        if player.left():
            raise ReplayError(f"{where} drew fewer random octets than in the recording")
        yield node, Played(number, call, commands)


def _repeat(node: Node, call: Call) -> list[Command]:
    kinds = _signature(call.method)
    try:
        arguments = msgspec.msgpack.decode(call.arguments, type=kinds[0], dec_hook=_decoded)
    except _UNREADABLE as problem:
        raise ReplayError(f"its arguments cannot be read ({problem})") from None
    times = (call.now, call.unix) if kinds[1] else ()
    try:
        commands: list[Command] | None = getattr(node, call.method)(*arguments, *times)
    except ReplayError:
        raise
    except Exception as problem:
        raise ReplayError(f"the node failed: {type(problem).__name__}: {problem}") from problem
    return commands or []


# --- What stands in it ------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """Arguments and commands as octets."""
    return msgspec.msgpack.encode(value, enc_hook=_encoded)


def digest(commands: list[Command]) -> bytes:
    """Of all commands of one call, every octet of them."""
    named = [(type(command).__name__, command) for command in commands]
    return hashlib.sha256(encode(named)).digest()[:_DIGEST]


def _encoded(value: Any) -> Any:
    match value:
        case IPv6Address():
            return value.packed
        case dns.name.Name():
            return value.to_text()
        case dns.rdata.Rdata():
            return (int(value.rdtype), value.to_digestable())
        case _:
            raise NotImplementedError(f"a {type(value).__name__} in a recording")


def _decoded(kind: type, value: Any) -> Any:
    if kind is IPv6Address:
        return IPv6Address(value)
    if kind is dns.name.Name:
        return dns.name.from_text(value)
    raise NotImplementedError(f"a {kind.__name__} in a recording")


@cache
def _signature(method: str) -> tuple[Any, bool]:
    """The type of the method's arguments without the times, and whether it takes those."""
    function = getattr(Node, method, None)
    if method.startswith("_") or not inspect.isfunction(function):
        raise ReplayError("a node has no such method")
    hints = get_type_hints(function, localns={"Name": dns.name.Name})
    if hints["return"] not in (list[Command], type(None)):
        raise ReplayError("that method of a node changes nothing")
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    wanted = tuple(hints[name] for name in names if name not in _TIMES)
    kinds = tuple[wanted] if wanted else tuple[()]  # type: ignore[valid-type] # made just here
    return kinds, _TIMES[0] in names
