"""Dataclasses from plain values, such as JSON's, with sentences for what does not fit."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from cellvit_jax.errors import InputError

T = TypeVar("T")


def build(kind: type[T], values: Any, where: str = "") -> T:
    """An instance of a dataclass, or a plain value of a type; `where` is its name in sentences.

    Lists become tuples and whole numbers floats where the type says so. Raises `InputError` for
    names that it does not have, with the nearest, and for values of other types.
    """
    if dataclasses.is_dataclass(kind):
        return _instance(kind, values, where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (some,) = (one for one in inner if one is not types.NoneType)
        return None if values is None else build(some, values, where)  # type: ignore[return-value]
    if origin is tuple:
        return _tuple(inner, values, where)
    if origin is Literal:
        fits = values in inner
    elif kind is float:
        fits = isinstance(values, int | float) and not isinstance(values, bool)
    else:
        fits = type(values) is kind
    if not fits:
        raise InputError(f"{where} must be {_name(kind)}, not {json.dumps(values)}")
    return kind(values) if kind is float else values  # type: ignore[call-arg]


def _instance(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise InputError(f"{where or 'the config'} must be a group of values, not {values!r}")
    hints = typing.get_type_hints(kind)
    inside = {name: f"{where}.{name}".lstrip(".") for name in values}
    for name in values:
        if name not in hints:
            raise InputError(unknown(inside[name], name, hints))
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where or 'the config'} lacks {', '.join(missing)}")
    return kind(**{name: build(hints[name], value, inside[name]) for name, value in values.items()})


def _tuple(inner: tuple[Any, ...], values: Any, where: str) -> Any:
    many = inner[-1] is Ellipsis
    if not isinstance(values, list | tuple) or not (many or len(values) == len(inner)):
        count = "" if many else f"{len(inner)} "
        raise InputError(f"{where} must be a list of {count}values, not {json.dumps(values)}")
    parts = inner[:1] * len(values) if many else inner
    pairs = enumerate(zip(parts, values, strict=True))
    return tuple(build(part, value, f"{where}.{i}") for i, (part, value) in pairs)


def _name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    return names.get(kind, str(kind))


def unknown(
    where: str,
    name: str,
    known: Sequence[str] | Mapping[str, Any],
    elsewhere: Mapping[str, str] | None = None,
) -> str:
    """The sentence for a name that is none of those known, with the nearest of these.

    It may be one of `elsewhere`, which are other names and what to say of each.
    """
    said = {**(elsewhere or {}), **{one: one for one in known}}
    near = difflib.get_close_matches(name, list(said), n=1, cutoff=0.4)
    hint = f"did you mean {said[near[0]]}?" if near else f"known are {', '.join(known)}"
    return f"there is no {where}: {hint}"


def override(values: dict[str, Any], assignment: str) -> None:
    """Change plain values in place as `path.to.name=VALUE` says, VALUE in JSON or a bare text.

    The path must lead to something that is there. Raises `InputError`.
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"{assignment!r} sets nothing: expected NAME=VALUE")
    place: Any = values
    *groups, last = path.split(".")
    everywhere = {name.rpartition(".")[2]: name for name in dotted(values)}
    for group in groups:
        place = place[_key(place, group, path, everywhere)]
    key = _key(place, last, path, everywhere)
    try:
        place[key] = json.loads(text)
    except ValueError:
        place[key] = text


def dotted(values: Mapping[str, Any], where: str = "") -> list[str]:
    """The dotted names of all plain values, those of groups before what is in them."""
    names = []
    for name, value in values.items():
        names.append(f"{where}{name}")
        if isinstance(value, dict):
            names += dotted(value, f"{where}{name}.")
    return names


def _key(place: Any, name: str, path: str, everywhere: Mapping[str, str]) -> Any:
    if isinstance(place, list) and name.isdigit() and int(name) < len(place):
        return int(name)
    if not isinstance(place, dict) or name not in place:
        known = list(place) if isinstance(place, dict) else []
        raise InputError(unknown(path, name, known, everywhere) if known else f"there is no {path}")
    return name


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """The names of plain values that differ, with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [*one, *(name for name in other if name not in one)]
        return [
            line
            for name in names
            for line in differences(one.get(name), other.get(name), f"{where}.{name}".lstrip("."))
        ]
    return [] if one == other else [f"{where}: {json.dumps(one)}, now {json.dumps(other)}"]
