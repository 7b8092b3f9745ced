"""A missing or stale native build explains itself, and nothing falls back silently."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import fastpath
from fastpath import EngineUnavailable, EngineWarning, choose, engines, load
from tests.fastpath.support import native_module


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[ImportError], None]:
    """Makes the import of the native pump fail."""

    def breaks(error: ImportError) -> None:
        real = importlib.import_module

        def import_module(name: str, package: str | None = None) -> ModuleType:
            if name == "fastpath._pump":
                raise error
            return real(name, package)

        monkeypatch.setattr(fastpath.importlib, "import_module", import_module)

    return breaks


NOT_BUILT = ModuleNotFoundError("No module named 'fastpath._pump'", name="fastpath._pump")
NO_LIBRARY = ImportError("libIPSec_MB.so.1: cannot open shared object file")


def test_both_engines_are_listed_the_preferred_one_first() -> None:
    native_module("_pump")
    known = engines()
    assert list(known) == ["native", "reference"]
    assert known["native"].available
    assert not known["native"].stale, "the sources were edited: run `make build`"
    assert known["native"].aead == native_module("_aead").describe("auto")
    assert "openssl" in known["native"].aeads
    assert known["reference"].available
    assert str(known["reference"].aead).startswith("cryptography ")


def test_auto_takes_the_native_engine_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load("auto") is sys.modules["fastpath._esp"]
        assert load("reference").__name__ == "fastpath.reference.esp"


@pytest.mark.parametrize(
    ("error", "cause"),
    [(NOT_BUILT, "fastpath._pump was not built"), (NO_LIBRARY, "libIPSec_MB.so.1")],
)
def test_an_absent_build_names_cause_and_fix(broken: Any, error: ImportError, cause: str) -> None:
    broken(error)
    native = engines()["native"]
    assert not native.available
    assert native.reason is not None
    assert cause in native.reason
    assert "make build" in native.reason
    with pytest.raises(EngineUnavailable, match="make build"):
        choose("native")


def test_auto_falls_back_only_with_a_warning(broken: Any) -> None:
    broken(NOT_BUILT)
    with pytest.warns(EngineWarning, match="slow reference engine.*make build"):
        assert load("auto").__name__ == "fastpath.reference.esp"


def test_a_stale_build_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_module("_aead"), "BUILD", "0" * 16)
    assert engines()["native"].stale
    with pytest.warns(EngineWarning, match="other sources.*make build"):
        assert choose().name == "native"


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, native, reference"):
        choose("warp")
