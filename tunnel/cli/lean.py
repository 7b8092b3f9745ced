"""Loads our libraries without what they would load for extras that no host has a use for.

A process that stays imports it before anything that is not Python's own. While it loads them,
their extras look as if not installed, which each of them is made for; afterwards whoever asks for
an extra gets it. Decision 0022 says what that is worth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

LIBRARIES = ("shutil", "msgspec", "structlog", "dns.name")
EXTRAS: dict[str, ModuleType | None] = {
    "better_exceptions": None,  # structlog's, as rich: ours are plain (voice.log_to_stderr)
    "bz2": None,  # shutil's, for archives
    "lzma": None,
    "rich": None,
    "typing_extensions": None,  # msgspec's; typing has all of it since Python 3.11
    # dnspython asks it for the version of `idna`, which resolves no name of ours, and so would load
    # email, csv and zipfile. An empty one cannot answer: then it does without.
    "importlib.metadata": ModuleType("importlib.metadata"),
}


@contextmanager
def without(extras: dict[str, ModuleType | None]) -> Iterator[None]:
    """Hides those that nobody loaded yet: ``None`` in ``sys.modules`` is how Python's import system
    says that there is no such module (its reference, 5.3.1)."""
    # typeshed knows no None in sys.modules.
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    hidden = extras.keys() - modules.keys()
    modules.update((name, extras[name]) for name in hidden)
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


with without(EXTRAS):
    for _name in LIBRARIES:
        import_module(_name)
