"""What every section of a configuration file shares: its errors and its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from tunnel.spelling import is_domain, parse_address_endpoint, parse_ula

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10 * 365 * 86400)]

DEFAULT_DNS_PORT = 53
DEFAULT_TLS_PORT = 853
_LONGEST = 400  # characters of a complaint's part


class ConfigError(Exception):
    """The configuration cannot be used; the text names file, key, cause and fix.

    ``key`` is the dotted key (``host.listen``), or empty when the file as a whole is wrong.
    """

    def __init__(self, file: Path, key: str, cause: str, fix: str) -> None:
        self.file, self.key, self.cause, self.fix = file, key, cause, fix
        where = f"{file}: {_short(key)}" if key else str(file)
        super().__init__(f"{where}: {_short(cause)}; {_short(fix)}")


def _short(text: str) -> str:
    """What a sentence can hold: a wrong value, or key, may be as long as the file."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class WrongValueError(ValueError):
    """A value that a section refuses: cause and fix, without the place, which the reader adds."""

    def __init__(self, key: str, cause: str, fix: str) -> None:
        self.key, self.cause, self.fix = key, cause, fix
        super().__init__(cause)


def endpoint_or_refuse(key: str, text: str, example: str, default_port: int | None = None) -> None:
    """An address with a port, or :class:`WrongValueError` with the example as its fix."""
    try:
        parse_address_endpoint(text, default_port)
    except ValueError as problem:
        raise WrongValueError(key, str(problem), f'write it like "{example}"') from None


def ula_or_refuse(key: str, text: str, fix: str) -> None:
    """An address of fc00::/7, or :class:`WrongValueError`."""
    try:
        parse_ula(text)
    except ValueError as problem:
        raise WrongValueError(key, str(problem), fix) from None


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file: immutable, and with no key that it does not know."""


def domain_or_refuse(domain: str) -> None:
    """A domain's name, or :class:`WrongValueError`."""
    if not is_domain(domain):
        raise WrongValueError(
            "domain",
            f"{domain!r} is not a domain name",
            'write it like "alice.members.example", lower case and without a dot at the end',
        )
