"""Frozen dataclasses whose fields are checked as they are made, and whose mistakes are one line each."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, dataclass_transform

import pydantic

from transformer_jax.errors import InputError

_Config = TypeVar("_Config")


def placement(*, default: Any) -> Any:
    """A field that says where or how a run happens; it may differ on a resume."""
    return dataclasses.field(default=default, metadata={"placement": True})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field, placement))
def config(cls: type[_Config]) -> type[_Config]:
    """A frozen, keyword-only dataclass that checks the type of each field; a mistake raises a one-line InputError."""
    settings = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    checked: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=settings)(cls)
    initialise: Callable[..., None] = checked.__init__

    @functools.wraps(initialise)
    def checked_initialise(self: object, *args: object, **fields: object) -> None:
        try:
            initialise(self, *args, **fields)
        except pydantic.ValidationError as error:
            raise InputError(_explain(error, checked)) from None

    checked.__init__ = checked_initialise
    return checked


def _explain(error: pydantic.ValidationError, cls: type) -> str:
    """The first mistake of a validation as one line: the field, the value, what would be right."""
    mistake = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in (cls.__name__, *mistake["loc"]))
    match mistake["type"]:
        case "unexpected_keyword_argument" | "unexpected_property":
            return f"{name}: no such field{_suggest(str(mistake['loc'][-1]), cls)}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            of = f" from {mistake['input']!r}" if isinstance(mistake["input"], tuple | list) else ""
            return f"{name}: missing{of}"
        case "json_invalid":
            return f"{name}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
        case "value_error":
            return f"{name}: {mistake['ctx']['error']}"
    return f"{name} = {mistake['input']!r}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def _suggest(wrong: str, cls: type) -> str:
    known = {part for flag, _ in fields_of(cls) for part in flag.split(".")}
    close = difflib.get_close_matches(wrong, sorted(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(map(repr, sorted(known)))}"


def require(condition: bool, message: str) -> None:
    """Raises a ValueError, which a checked class turns into its InputError."""
    if not condition:
        raise ValueError(message)


def require_positive(owner: object, *names: str) -> None:
    """Requires these fields to be above 0."""
    for name in names:
        require(getattr(owner, name) > 0, f"{name}={getattr(owner, name)} must be above 0")


def require_share(owner: object, *names: str) -> None:
    """Requires these fields to be in [0, 1)."""
    for name in names:
        require(0 <= getattr(owner, name) < 1, f"{name}={getattr(owner, name)} must be in [0, 1)")


def checked_from_json(cls: type[_Config], text: str) -> _Config:
    """The instance of a checked class that JSON describes.

    Raises:
        InputError: on JSON that is broken, and on unknown fields and wrong values, by name.
    """
    try:
        return pydantic.TypeAdapter(cls).validate_json(text)
    except pydantic.ValidationError as error:
        raise InputError(_explain(error, cls)) from None


def fields_of(cls: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every leaf field of a config class as (dotted name, whether it is placement); unions give all their members'."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        is_placement = bool(field.metadata.get("placement"))
        members = [hint for hint in _members(hints[field.name]) if dataclasses.is_dataclass(hint)]
        if not members:
            yield prefix + field.name, is_placement
        for member in members:
            for name, inner in fields_of(typing.cast(type, member), f"{prefix}{field.name}."):
                yield name, is_placement or inner


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def leaves_of(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested dictionary under its dotted name."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def inner_configs(name: str, value: Any) -> list[tuple[str, Any]]:
    """The configs that the value of a field is or holds, by their dotted names: those in a tuple by their numbers."""
    if dataclasses.is_dataclass(value):
        return [(name, value)]
    if isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
        return [(f"{name}.{number}", item) for number, item in enumerate(value)]
    return []


def settings_of(instance: Any, prefix: str = "", inside: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Every leaf of a config as (dotted name, value, whether it is placement)."""
    for field in dataclasses.fields(instance):
        name, value = prefix + field.name, getattr(instance, field.name)
        is_placement = inside or bool(field.metadata.get("placement"))
        inner = inner_configs(name, value)
        for owner, own in inner:
            yield from settings_of(own, f"{owner}.", is_placement)
        if not inner:
            yield name, value, is_placement
