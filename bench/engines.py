"""The engines and AEAD backends that can be measured here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from fastpath.reference import esp as reference


@dataclass(frozen=True)
class Engine:
    """A module with OutboundSa and InboundSa, or ``None`` and the reason."""

    name: str
    aead: str
    module: ModuleType | None
    reason: str = ""

    @property
    def label(self) -> str:
        """As tables show it."""
        return f"{self.name} ({self.aead})" if self.aead else self.name


def all_engines() -> list[Engine]:
    """The reference engine, and the native one with what it was built with."""
    return [Engine("reference", "cryptography", reference), _native()]


def available() -> list[Engine]:
    """Those that run here."""
    return [engine for engine in all_engines() if engine.module is not None]


def _native() -> Engine:
    try:
        module = importlib.import_module("fastpath._esp")
    except ImportError as error:
        return Engine("native", "", None, f"not built or not loadable ({error}); run `make build`")
    return Engine("native", str(getattr(module, "aead", "")), module)
