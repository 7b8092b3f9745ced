"""Copies of worlds, many a second: what never changes is shared, everything else is another one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from tests.model.post import Letter

_World = TypeVar("_World")
_SHARED = (int, float, str, bytes, tuple, type(None), Enum, Letter)
"""Never changed, in a world; a tuple holds such values alone."""


def copied(world: _World) -> _World:
    """Another world like this one."""
    again: _World = _copy(world, {})
    return again


def _copy(value: Any, seen: dict[int, Any]) -> Any:
    kind = type(value)
    return (_COPIERS.get(kind) or _learnt(kind))(value, seen)


def _learnt(kind: type) -> Callable[[Any, dict[int, Any]], Any]:
    params = getattr(kind, "__dataclass_params__", None)
    if issubclass(kind, _SHARED) or (params is not None and params.frozen):
        made = _same
    elif issubclass(kind, dict):
        made = _dict
    elif issubclass(kind, list | set):
        made = _items
    else:
        made = _object(kind)
    if made is _same:
        _KNOWN_SHARED.add(kind)
    _COPIERS[kind] = made
    return made


def _same(value: Any, _: dict[int, Any]) -> Any:
    return value


def _dict(value: Any, seen: dict[int, Any]) -> Any:
    return type(value)((key, _copy(one, seen)) for key, one in value.items())


def _items(value: Any, seen: dict[int, Any]) -> Any:
    return type(value)(_copy(one, seen) for one in value)


def _object(kind: type) -> Callable[[Any, dict[int, Any]], Any]:
    """Of this class: by its slots, or its dictionary. One that is held twice stays one."""
    slots = [name for one in kind.__mro__ for name in getattr(one, "__slots__", ())]

    def made(value: Any, seen: dict[int, Any]) -> Any:
        again = seen.get(id(value))
        if again is None:
            again = seen[id(value)] = object.__new__(kind)
            for name in slots or value.__dict__:
                held = getattr(value, name)
                if type(held) not in _KNOWN_SHARED:
                    held = _copy(held, seen)
                setattr(again, name, held)
        return again

    return made


_KNOWN_SHARED: set[type] = set()
_COPIERS: dict[type, Callable[[Any, dict[int, Any]], Any]] = {}
