"""The engines and AEAD backends that can be measured here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import fastpath
from fastpath.reference import esp as reference


@dataclass(frozen=True)
class Engine:
    """One engine with one AEAD backend: what makes its outbound and inbound SAs."""

    label: str
    outbound: Callable[..., Any]
    inbound: Callable[..., Any]


def available() -> tuple[list[Engine], str | None]:
    """The reference engine, the native one with each of its backends; why that one is not there."""
    known = fastpath.engines()
    found = [
        Engine(f"reference, {known['reference'].aead}", reference.OutboundSa, reference.InboundSa)
    ]
    info = known["native"]
    if not info.available:
        return found, info.reason
    native = importlib.import_module("fastpath._esp")
    shown: dict[str, str] = importlib.import_module("fastpath._aead").backends()
    found += [
        Engine(
            f"native, {shown[name]}",
            partial(native.OutboundSa, aead=name),
            partial(native.InboundSa, aead=name),
        )
        for name in info.aeads
    ]
    return found, info.reason
