"""Values and builders that the data path's tests share."""

from __future__ import annotations

import importlib
import struct
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fastpath.reference import esp as reference
from fastpath.types import Mode, SaParams, Suite

OUR_ID = bytes.fromhex("fd11121314151617002269fffe000001")
PEER_ID = bytes.fromhex("fd01020304050607002269fffe8e342a")
STRANGER_ID = bytes.fromhex("fd99999999999999002269fffe999999")
SUITES = list(Suite)
SPI = 0xC0FFEE01

# The machine that tests may be busy with other things: no figure of time decides here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

BUILD_FIRST = "the native engine is not built or not loadable: run `make build` ({error})"


def native_module(name: str) -> ModuleType:
    """An extension of the native engine; a missing one is a failure, never a skipped test."""
    try:
        return importlib.import_module(f"fastpath.{name}")
    except ImportError as error:
        pytest.fail(BUILD_FIRST.format(error=error), pytrace=False)


ENGINES = ["reference", "native", "native-openssl"]


def esp_engine(name: str) -> Any:
    """OutboundSa and InboundSa of one of :data:`ENGINES`.

    ``native`` is the native engine with its best AEAD backend on this machine,
    ``native-openssl`` with the one that it has everywhere.
    """
    if name == "reference":
        return reference
    native = native_module("_esp")
    if name == "native":
        return native
    return SimpleNamespace(
        OutboundSa=partial(native.OutboundSa, aead="openssl"),
        InboundSa=partial(native.InboundSa, aead="openssl"),
    )


def key_of(suite: Suite, fill: int = 0) -> bytes:
    """A key with its salt, different for every ``fill``."""
    return bytes((fill + n) % 256 for n in range(suite.key_octets + 4))


def params(
    suite: Suite = Suite.AES128GCM16,
    *,
    spi: int = SPI,
    key: bytes | None = None,
    local_id: bytes = OUR_ID,
    peer_id: bytes = PEER_ID,
    esn: bool = True,
    mode: Mode = Mode.TUNNEL,
    replay_window: int = 64,
) -> SaParams:
    """One direction of an SA, seen from the host ``local_id``."""
    key = key_of(suite) if key is None else key
    return SaParams(spi, suite, key, local_id, peer_id, esn, mode, replay_window)


def ipv6(
    source: bytes, destination: bytes, payload: bytes = b"hello", next_header: int = 59
) -> bytes:
    """A whole IPv6 packet."""
    return (
        struct.pack(">IHBB", 6 << 28, len(payload), next_header, 64)
        + source
        + destination
        + payload
    )


def tunnelled_in(payload: bytes = b"hello") -> bytes:
    """An inner packet from the peer to us."""
    return ipv6(PEER_ID, OUR_ID, payload)


def tunnelled_out(payload: bytes = b"hello") -> bytes:
    """An inner packet from us to the peer."""
    return ipv6(OUR_ID, PEER_ID, payload)
