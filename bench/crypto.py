"""What one packet costs a caller in Python: seal and open beside the bare library call.

Every contender runs in turns within each round, so that a slow moment of the machine hits all;
the best round counts, since nothing but disturbance makes the same work take longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from bench import engines, machine, report
from fastpath.types import SaParams, Suite

SIZES = (64, 512, 1400)  # inner packet, octets
LOCAL, PEER = b"\xfd" + bytes(15), b"\xfd" + bytes(14) + b"\x01"
BARE = "bare cryptography call"


@dataclass
class Contender:
    """Something that seals and opens. ``prepare(count)`` gives a pair of loops over ``count``."""

    name: str
    suite: Suite
    size: int
    prepare: Callable[[int], tuple[Callable[[], None], Callable[[], None]]]
    seal_ns: list[float] = field(default_factory=list)
    open_ns: list[float] = field(default_factory=list)

    def measure(self, count: int) -> None:
        for loop, into in zip(self.prepare(count), (self.seal_ns, self.open_ns), strict=True):
            started = time.perf_counter_ns()
            loop()
            into.append((time.perf_counter_ns() - started) / count)


def sa_params(suite: Suite) -> SaParams:
    return SaParams(0x1000, suite, bytes(range(suite.key_octets + 4)), LOCAL, PEER)


def engine_contender(engine: engines.Engine, suite: Suite, size: int) -> Contender:
    payload = b"\x60" + bytes(size - 1)

    def prepare(count: int) -> tuple[Callable[[], None], Callable[[], None]]:
        sender, receiver = engine.outbound(sa_params(suite)), engine.inbound(sa_params(suite))
        sealed: list[bytes] = []

        def seal() -> None:
            sealed.extend(sender.seal(payload, 41) for _ in range(count))

        def open_all() -> None:
            for packet in sealed:
                receiver.open(packet)

        return seal, open_all

    return Contender(engine.label, suite, size, prepare)


def bare_contender(suite: Suite, size: int) -> Contender:
    """The library alone: one encrypt or decrypt, without ESP around it."""
    key, payload = sa_params(suite).key, bytes(size + 4)
    cipher = (ChaCha20Poly1305 if suite is Suite.CHACHA20POLY1305 else AESGCM)(key[:-4])
    nonce, header = bytes(12), bytes(12)

    def prepare(count: int) -> tuple[Callable[[], None], Callable[[], None]]:
        sealed = cipher.encrypt(nonce, payload, header)

        def seal() -> None:
            for _ in range(count):
                cipher.encrypt(nonce, payload, header)

        def open_all() -> None:
            for _ in range(count):
                cipher.decrypt(nonce, sealed, header)

        return seal, open_all

    return Contender(BARE, suite, size, prepare)


def run(*, rounds: int, count: int, as_json: bool, save: bool) -> None:
    """``count`` packets per contender and round."""
    available, reason = engines.available()
    if reason is not None:
        report.say(f"native engine: {reason}")
    contenders = [
        contender
        for suite in Suite
        for size in SIZES
        for contender in (
            bare_contender(suite, size),
            *(engine_contender(engine, suite, size) for engine in available),
        )
    ]
    for number in range(rounds):
        report.say(f"round {number + 1} of {rounds}")
        for contender in contenders:
            contender.measure(count)
    body = {"rounds": rounds, "packets": count, "results": [summary(c) for c in contenders]}
    report.finish("crypto", body, render(contenders), as_json=as_json, save=save)


def summary(contender: Contender) -> dict[str, object]:
    seal, open_ = min(contender.seal_ns), min(contender.open_ns)
    return {
        "contender": contender.name,
        "suite": str(contender.suite),
        "octets": contender.size,
        "seal_ns": round(seal, 1),
        "open_ns": round(open_, 1),
        "seal_gbit_s": round(contender.size * 8 / seal, 3),
        "open_gbit_s": round(contender.size * 8 / open_, 3),
        "seal_ns_median": round(report.median(contender.seal_ns), 1),
        "open_ns_median": round(report.median(contender.open_ns), 1),
    }


def render(contenders: list[Contender]) -> str:
    bare = {(c.suite, c.size): c for c in contenders if c.name == BARE}
    rows = []
    for one in contenders:
        row = [f"{one.suite} {one.size}", one.name]
        library = bare[one.suite, one.size]
        for of_one, of_bare in ((one.seal_ns, library.seal_ns), (one.open_ns, library.open_ns)):
            best = min(of_one)
            row += [f"{best:.0f}", f"{one.size * 8 / best:.2f}", f"{best / min(of_bare):.2f}"]
        rows.append(row)
    head = ["suite, octets", "contender"]
    for what in ("seal", "open"):
        head += [f"{what} ns", "Gbit/s", "× bare"]
    return report.table(machine.summary(), head, rows)
