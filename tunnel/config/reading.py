"""From a file's octets to typed sections, and what to say when one is wrong.

It is done in two steps: unknown keys first, so that the nearest known key can be named, then
types and ranges by msgspec.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from tunnel.config.base import ConfigError, WrongValueError

_T = TypeVar("_T", bound=msgspec.Struct)
_LARGEST = 1 << 20  # octets; thousands of peers
_DEEPEST = 4  # parts of a key; ours have two
# tomllib's time grows with the square of a key's parts, and with those of the table it stands in.
# Where a line begins, any key of more than that; within one, where a text or a remark may look like
# a key, only what no domain's name is.
_PART = rb"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_TOO_DEEP = re.compile(
    rb"^[ \t]*+\[{0,2}[ \t]*+(?:%s){%d}|[{,][ \t]*+(?:%s){128}" % (_PART, _DEEPEST, _PART),
    re.MULTILINE,
)
_TOML_WORDS = {
    "`object`": "a table",
    "`array`": "a list",
    "`str`": "a text",
    "`bool`": "true or false",
}
_OTHERS = {
    "host": "this is a host's file; `serve` reads a serve.toml, `up` reads this one",
    "serve": "this is a rendezvous' file; `up` reads a config.toml, `serve` reads this one, and "
    "`serve --status` shows how it is",
}
"""A table by which a file is known to be the other one."""


def read(path: Path) -> dict[str, Any]:
    """The file's tables. Raises :class:`ConfigError`."""
    try:
        with path.open("rb") as file:
            octets = file.read(_LARGEST + 1)
    except FileNotFoundError:
        fix = "run `autotunnel init` or `autotunnel join`, or name another with -c FILE"
        raise ConfigError(path, "", "there is no such file", fix) from None
    except OSError as problem:
        cause = f"it cannot be read ({problem.strerror})"
        raise ConfigError(path, "", cause, "check its owner and mode") from None
    if len(octets) > _LARGEST:
        cause = f"it has more than {_LARGEST} octets"
        raise ConfigError(path, "", cause, "name the configuration with -c FILE")
    return parse_toml(path, octets)


def parse_toml(path: Path, octets: bytes) -> dict[str, Any]:
    """TOML octets to tables; ``path`` only names them. Raises :class:`ConfigError`."""
    if deep := _TOO_DEEP.search(octets):
        line = octets.count(b"\n", 0, deep.end()) + 1
        cause = f"line {line} has a key of more than {_DEEPEST} parts, and none here has so many"
        raise ConfigError(path, "", cause, "correct that line")
    try:
        return tomllib.loads(octets.decode("utf-8-sig"))  # Windows' editors begin with a BOM
    except UnicodeDecodeError:
        raise ConfigError(path, "", "it is not UTF-8 text", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as problem:
        reason = str(problem)
    except RecursionError:
        reason = "nested too deep"
    except ValueError:
        reason = "a number of thousands of digits"
    raise ConfigError(path, "", f"it is not TOML ({reason})", "correct that line")


def convert(path: Path, tables: dict[str, Any], shape: type[_T]) -> _T:
    """Tables as the struct ``shape``; ``path`` only names them. Raises :class:`ConfigError`."""
    _refuse_unknown(path, tables, shape, "")
    try:
        return msgspec.convert(tables, shape)
    except msgspec.ValidationError as problem:
        cause, _, place = str(problem).partition(" - at `$")
        key = place.removesuffix("`").lstrip(".").replace("[...]", "[]")
        wrong = problem.__cause__
        if isinstance(wrong, WrongValueError):
            key = f"{key}.{wrong.key}".lstrip(".")
            raise ConfigError(path, key, wrong.cause, wrong.fix) from None
        missing = cause.startswith("Object missing required field")
        if missing:
            name = cause.split("`")[1]
            key = f"{key}.{name}".lstrip(".")
            is_table = key == name and _struct_in(_types(shape)[name]) is not None
            what = f"add a table [{name}]" if is_table else f'add "{name}"'
            raise ConfigError(path, key, "it is missing", what) from None
        cause = cause[:1].lower() + cause[1:]
        for word, plain in _TOML_WORDS.items():
            cause = cause.replace(word, plain)
        raise ConfigError(path, key, cause, _correction(shape, key)) from None


def _correction(shape: Any, key: str) -> str:
    """The fix for a value of a wrong type: the allowed ones, where there are a few."""
    kind: Any = shape
    for part in key.replace("[]", "").split("."):
        struct = _struct_in(kind)
        fields = {} if struct is None else _types(struct)
        if part.partition("[")[0] not in fields:
            return "correct the value"
        kind = fields[part.partition("[")[0]]
    choice = " or ".join(f'"{one}"' for one in _literals(kind))
    if not choice:
        return "correct the value"
    # Of a number or a word, the number may have been meant.
    return f"correct the value, or use {choice}" if int in _bare(kind) else f"use {choice}"


def _bare(kind: Any) -> set[Any]:
    """The types of a union, without what Annotated adds."""
    return {getattr(inner, "__origin__", inner) for inner in get_args(kind)}


@cache
def _types(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def _literals(kind: Any) -> tuple[str, ...]:
    """The texts that ``Literal[...]`` or ``tuple[Literal[...], ...]`` allows."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, (_literals(inner) for inner in get_args(kind))), ())


def _refuse_unknown(path: Path, tables: dict[str, Any], shape: Any, prefix: str) -> None:
    """Walks the tables beside the structs, and names the nearest known key of a stranger."""
    known = _types(shape)
    for key, value in tables.items():
        place = f"{prefix}{key}"
        if key not in known:
            from difflib import get_close_matches  # not above: a host that stays needs it never

            near = get_close_matches(key, known, n=1, cutoff=0.5)
            what = "table" if isinstance(value, dict) else "key"
            every = ", ".join(sorted(known))
            fix = f'did you mean "{near[0]}"?' if near else f"known here: {every}"
            if not prefix and key in _OTHERS:
                fix = _OTHERS[key]
            raise ConfigError(path, place, f"unknown {what}", fix)
        if any("\0" in text for text in _texts(value)):
            raise ConfigError(path, place, "it has a NUL character in it", "take it out")
        inner = _struct_in(known[key])
        if inner is None:
            continue
        if isinstance(value, dict):
            _refuse_unknown(path, value, inner, f"{place}.")
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, dict):
                    _refuse_unknown(path, entry, inner, f"{place}[{index}].")


def _texts(value: Any) -> list[str]:
    """A text, or those of a list: no path or name can have a NUL."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct inside ``X``, ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if get_origin(kind) is not None:
        for argument in get_args(kind):
            found = _struct_in(argument)
            if found is not None:
                return found
    return None
