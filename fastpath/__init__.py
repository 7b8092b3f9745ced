"""How bytes move: ESP, AEAD, replay, and the pump between TUN device and UDP socket.

Two engines do the same, byte for byte. ``fastpath/reference/`` is plain Python over
``cryptography``: the law, the oracle of the tests, and the portable engine. The native one is
Cython over ipsec-mb or OpenSSL. Read it in the order a packet meets it:

    TUN ─ _outbound ─ _segment (64 KB frames into packets) ─ _esp ─ _sender, _whole ─> UDP
    UDP ─ _receiver ─ _inbound ─ _esp ─ _merge (packets into 64 KB frames) ──> TUN

``_relay`` nests what goes through a home agent, and forwards what comes to one. ``_core`` holds
what the threads share: SAs and flows (``_table``), counters, and the queue of events towards Python
(``_events``); ``_turn`` says which thread serves TUN. ``_pump`` is the border: it validates, starts
one thread for each direction, and from there no Python object, allocation or log line is met by a
packet.
Rules that hold everywhere: the tables are read under a lock taken once per batch; a packet
that is not passed on is counted under a :class:`~fastpath.types.Drop`; a replay window is
checked before, and marked after, the ICV is verified.

The running engine is never a surprise: :func:`engines` says which there are and why one is
not, :func:`choose` and :func:`load` never fall back without a warning.
"""

from __future__ import annotations

import hashlib
import importlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_NATIVE_MODULES = ("_aead", "_esp", "_pump")
_BUILD_COMMAND = "run `make build` (or `python setup.py build_ext --inplace`)"


class EngineUnavailable(Exception):  # noqa: N818 - a state of this machine, not a fault of the caller
    """The engine that was asked for cannot run; the text says cause and fix."""


class EngineWarning(UserWarning):
    """An engine runs that is not what one would expect; the text says cause and fix."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """One engine. ``reason`` says what is wrong with it and the fix, ``None`` when nothing is.

    ``aead`` is what ``status`` shows; ``aeads`` are all names that its ``aead=`` argument takes
    (of :func:`engines` only: looking for them loads what a host has no use for).
    ``stale`` is true where the sources here are not those that the native modules were built of.
    """

    name: str
    available: bool
    aead: str | None
    reason: str | None
    stale: bool = False
    aeads: tuple[str, ...] = ()


def engines() -> dict[str, EngineInfo]:
    """Both engines by name, the preferred one first."""
    native = _native()
    if native.available:
        aead: Any = importlib.import_module("fastpath._aead")
        native = replace(native, aeads=tuple(aead.backends()))
    return {"native": native, "reference": _reference()}


def choose(name: str = "auto") -> EngineInfo:
    """The engine to run for ``name`` ("auto", "native" or "reference").

    Raises :class:`EngineUnavailable`, and :class:`ValueError` for another name. Warns with
    :class:`EngineWarning` when "auto" has to take the reference engine or a build is stale.
    """
    known = {"native": _native, "reference": _reference}
    if name not in ("auto", *known):
        raise ValueError(f"no engine {name!r}; there are: auto, {', '.join(known)}")
    chosen = known["native" if name == "auto" else name]()
    if not chosen.available:
        if name != "auto":
            raise EngineUnavailable(f"the {chosen.name} engine cannot run: {chosen.reason}")
        text = f"running the slow reference engine, since the native one cannot: {chosen.reason}"
        warnings.warn(text, EngineWarning, stacklevel=2)
        return _reference()
    if chosen.stale:
        warnings.warn(f"the native engine: {chosen.reason}", EngineWarning, stacklevel=2)
    return chosen


def load(name: str = "auto") -> Any:
    """The module with ``OutboundSa`` and ``InboundSa`` of the engine that :func:`choose` takes."""
    native = choose(name).name == "native"
    return importlib.import_module("fastpath._esp" if native else "fastpath.reference.esp")


def _native() -> EngineInfo:
    try:
        modules = [importlib.import_module(f"fastpath.{name}") for name in _NATIVE_MODULES]
    except ModuleNotFoundError as problem:
        reason = f"{problem.name} was not built; {_BUILD_COMMAND}"
        return EngineInfo("native", False, None, reason)
    except ImportError as problem:  # built, but a library or the interpreter is not the build's
        reason = f"its build does not fit this system ({problem}); {_BUILD_COMMAND}"
        return EngineInfo("native", False, None, reason)
    aead: Any = modules[0]
    stale = _is_stale(aead.BUILD)
    warning = f"it was built from other sources than those here; {_BUILD_COMMAND}"
    return EngineInfo("native", True, aead.describe("auto"), warning if stale else None, stale)


def _reference() -> EngineInfo:
    try:
        import cryptography

        importlib.import_module("fastpath.reference.esp")
    except ImportError as problem:
        reason = f"{problem}; run `pip install cryptography`"
        return EngineInfo("reference", False, None, reason)
    return EngineInfo("reference", True, f"cryptography {cryptography.__version__}", None)


def _is_stale(build: str) -> bool:
    """Whether the sources beside us differ from those of ``build`` (setup.py: build_id)."""
    sources = sorted(path for end in ("pyx", "pxd", "h") for path in _HERE.glob(f"*.{end}"))
    if not any(path.suffix == ".pyx" for path in sources):
        return False  # installed from a wheel, which carries none
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return digest[:16] != build
