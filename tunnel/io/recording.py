"""The file of a recording: sealed, of mode 0600, bounded (:mod:`tunnel.recording`, decision 0052).

::

    "autotunnel recording v1\\n" | salt 32 | chunk … | last chunk
    chunk       length u32 | ChaCha20-Poly1305 of items, each with its length u32 before it
    last chunk  the same of the reason for the end; a recording without one was broken off

The key comes from the account's secret, or from the pre-shared keys of a host without an account,
so that whoever finds the file alone has nothing. Nonces count the chunks; the file's head, and
whether a chunk is the last, are authenticated with it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keys.account import Account
from keys.store import random_bytes
from tunnel import remedies
from tunnel.peers import StaticPeer

MAGIC: Final = b"autotunnel recording v1\n"
LARGEST: Final = 64 << 20  # octets of a recording
WINDOW: Final = 10.0  # seconds in which no more than BURST octets are recorded
BURST: Final = 8 << 20  # octets
CHUNK: Final = 64 << 10  # octets
_SALT: Final = 32  # octets
_TAG: Final = 16  # octets
_FLUSH: Final = 1.0  # seconds that an item may wait for its chunk
_LENGTH: Final = 4  # octets
_PSKS_LABEL: Final = b"autotunnel/1 recording psks"
_FILE_LABEL: Final = b"autotunnel/1 recording file"


class RecordingError(Exception):
    """A recording cannot be written or read; the text says cause and fix."""


class Begin(msgspec.Struct, array_like=True, frozen=True):
    """The first item: what a node is made from, but for secrets, which stay in their files.

    ``config`` is the configuration's text, ``files`` the octets of what else it was made from
    (:mod:`tunnel.io.making`), ``host_id`` 16 octets.
    """

    version: str
    config: bytes
    host_id: bytes
    mtu: int
    files: dict[str, bytes]


def secret_for(account: Account | None, static: tuple[StaticPeer, ...]) -> bytes:
    """What a recording of this host is sealed with. Raises :class:`RecordingError`."""
    if account is not None:
        return account.recording_key
    known = sorted(peer.psk for peer in static if peer.psk is not None)
    if not known:
        raise RecordingError(
            "a recording is sealed with the account's secret or a peer's pre-shared key, and this "
            "host has neither; record at its peer, or give both a pre-shared key"
        )
    joined = b"".join(len(psk).to_bytes(_LENGTH) + psk for psk in known)
    return _derive(joined, None, _PSKS_LABEL)


def _derive(secret: bytes, salt: bytes | None, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=label).derive(secret)


class RecordingFile:
    """Writes one recording. ``path`` must not be there yet."""

    def __init__(
        self,
        path: Path,
        secret: bytes,
        *,
        largest: int = LARGEST,
        burst: int = BURST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._largest, self._burst, self._clock = largest, burst, clock
        salt = random_bytes(_SALT)
        self._head = MAGIC + salt
        self._cipher = ChaCha20Poly1305(_derive(secret, salt, _FILE_LABEL))
        self._log = structlog.get_logger("autotunnel")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)
            self._file.write(self._head)
        except FileExistsError:
            raise RecordingError(f"{path} is there already; name another file") from None
        except OSError as problem:
            cause = f"{path} cannot be written ({problem.strerror})"
            raise RecordingError(f"{cause}; name a file in a folder of your own") from None
        self.octets = len(self._head)
        self.ended: str | None = None
        self._chunks = 0
        self._waiting = bytearray()
        self._flushed_at = self._window_at = clock()
        self._in_window = 0

    def write(self, item: bytes) -> None:
        """Takes one item. After the end it is lost: a recording with a gap could not be played."""
        if self.ended is not None:
            return
        now = self._clock()
        if now - self._window_at >= WINDOW:
            self._window_at, self._in_window = now, 0
        self._in_window += len(item)
        if self._in_window > self._burst:
            self._break_off(f"more than {self._burst} octets in {WINDOW:.0f} s: a flood?")
            return
        if self.octets + len(self._waiting) + len(item) > self._largest:
            self._break_off(f"it has reached {self._largest} octets")
            return
        self._waiting += len(item).to_bytes(_LENGTH) + item
        if len(self._waiting) >= CHUNK or now - self._flushed_at >= _FLUSH:
            self._flush(now)

    def end(self, reason: str) -> None:
        """Nothing is added any more; ``reason`` stands in its last chunk. Idempotent."""
        if self.ended is not None:
            return
        self.ended = reason
        self._flush(self._clock())
        self._seal(reason.encode(), last=True)
        self._file.close()

    def _break_off(self, reason: str) -> None:
        self.end(reason)
        fix = "what came before can be played; start the host anew to record it again"
        self._log.warning(f"the recording has ended: {reason}; {fix}", file=str(self.path))

    def _flush(self, now: float) -> None:
        self._flushed_at = now
        if self._waiting:
            octets, self._waiting = bytes(self._waiting), bytearray()
            self._seal(octets, last=False)

    def _seal(self, octets: bytes, *, last: bool) -> None:
        nonce = self._chunks.to_bytes(12)
        self._chunks += 1
        sealed = self._cipher.encrypt(nonce, octets, self._head + bytes((last,)))
        rest = memoryview(len(sealed).to_bytes(_LENGTH) + sealed)
        try:
            while rest:  # where there is little room, a part of it may be written
                rest = rest[self._file.write(rest) :]
        except OSError as problem:  # a full disk must not end the host
            self._fail(problem)
        self.octets += _LENGTH + len(sealed)

    def _fail(self, problem: OSError) -> None:
        """Leaves the whole chunks that were written before."""
        self.ended = self.ended or f"{problem.strerror}"
        with contextlib.suppress(OSError):
            self._file.truncate(self.octets)
        self._file.close()
        problem.filename = str(self.path)
        fix = "what came before can be played; start the host anew to record it again"
        self._log.error(f"the recording has ended: {remedies.sentence(problem)}; {fix}")


def read(path: Path) -> bytes:
    """The octets of a recording, at most those of the largest. Raises :class:`RecordingError`."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + CHUNK)
    except OSError as problem:
        cause = f"{path} cannot be read ({problem.strerror})"
        raise RecordingError(f"{cause}; name a file of `autotunnel up --record`") from None


class Reading:
    """Reads ``octets`` of the recording at ``path``; ``ended`` is the reason for its end once all
    items are read, and ``None`` where it was broken off. Raises :class:`RecordingError`."""

    def __init__(self, path: Path, octets: bytes, secret: bytes) -> None:
        self._path, self._octets = path, octets
        self.ended: str | None = None
        head = len(MAGIC) + _SALT
        if not self._octets.startswith(MAGIC) or len(self._octets) < head:
            raise RecordingError(f"{path} is no recording; `autotunnel up --record FILE` makes one")
        self._head = self._octets[:head]
        self._cipher = ChaCha20Poly1305(_derive(secret, self._head[len(MAGIC) :], _FILE_LABEL))

    def items(self) -> Iterator[bytes]:
        """All items in order. Raises :class:`RecordingError` at a chunk that is not genuine."""
        at, number = len(self._head), 0
        while (end := self._chunk_end(at)) is not None:
            sealed = self._octets[at + _LENGTH : end]
            octets, last = self._open(sealed, number)
            if last:
                self.ended = octets.decode(errors="replace")
                return
            yield from _items(octets)
            at, number = end, number + 1

    def _chunk_end(self, at: int) -> int | None:
        """Where the chunk ends; ``None`` if it is not all there."""
        start = at + _LENGTH
        if start > len(self._octets):
            return None
        end = start + int.from_bytes(self._octets[at:start])
        return end if start + _TAG <= end <= len(self._octets) else None

    def _open(self, sealed: bytes, number: int) -> tuple[bytes, bool]:
        for last in (False, True):
            try:
                octets = self._cipher.decrypt(
                    number.to_bytes(12), sealed, self._head + bytes((last,))
                )
            except InvalidTag:
                continue
            return octets, last
        if number == 0:
            raise RecordingError(
                f"{self._path} was sealed with another secret, or is damaged; replay it with the "
                "configuration and the secrets of the host that made it"
            )
        raise RecordingError(f"{self._path} is damaged after {number} chunks")


def _items(octets: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(octets):
        start = at + _LENGTH
        at = start + int.from_bytes(octets[at:start])
        yield octets[start:at]
