"""Flags of an experiment's fields that are given several values, and each value as `train` would read it."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import tyro

from transformer_jax.checked import inner_configs
from transformer_jax.cli.arguments import parse
from transformer_jax.config import Experiment
from transformer_jax.errors import InputError


class _Field(NamedTuple):
    """A field that takes one value."""

    kind: Any
    default: Any


Choices: TypeAlias = dict[str, list[list[str]]]  # of a field, by its dotted name: arguments, each with one value


def several(default: Experiment, arguments: Sequence[str]) -> tuple[Choices, list[str]]:
    """The fields to which arguments give several values, in order, and the arguments that are left.

    The values of a field may stand behind one flag, or each behind a flag of its own, as those of a switch do. What a
    field takes several of anyway, such as files, is left alone.
    """
    fields, choices, left = dict(_single(default)), Choices(), list[str]()
    for group in _groups(arguments):
        name = _name(group[0], fields)
        if name is None:
            left += group
        else:
            choices.setdefault(name, []).extend(_choices(group, name, fields[name].kind is bool))
    for given in choices.values():
        left += given[0] if len(given) == 1 else []
    return {name: given for name, given in choices.items() if len(given) > 1}, left


def values_of(default: Experiment, choices: Choices) -> dict[str, list[Any]]:
    """The values of fields.

    Raises:
        InputError: naming flag and value, on one that the field does not take.
    """
    fields = dict(_single(default))
    return {name: [_read(name, fields[name], each) for each in given] for name, given in choices.items()}


def _single(part: Any, prefix: str = "") -> Iterator[tuple[str, _Field]]:
    """All fields that take one value, by their dotted names."""
    hints = typing.get_type_hints(type(part))
    for field in dataclasses.fields(part):
        value, hint = getattr(part, field.name), hints[field.name]
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        inner = inner_configs(prefix + field.name, value)
        for owner, own in inner:
            yield from _single(own, f"{owner}.")
        if not inner and not any(typing.get_origin(member) is tuple for member in members):
            yield prefix + field.name, _Field(hint, value)


def _groups(arguments: Sequence[str]) -> list[list[str]]:
    """Flags, each with its values."""
    groups: list[list[str]] = []
    for argument in arguments:
        if groups and not argument.startswith("--") and argument != "-h":
            groups[-1].append(argument)
        else:
            groups.append([argument])
    return groups


def _name(flag: str, fields: dict[str, _Field]) -> str | None:
    """The field that a flag is of, where it takes one value."""
    name = flag.partition("=")[0].removeprefix("--").replace("-", "_")
    parents, dot, last = name.rpartition(".")
    positive = f"{parents}{dot}{last.removeprefix('no_')}"
    if name in fields:
        return name
    return positive if positive in fields and fields[positive].kind is bool else None


def _choices(group: Sequence[str], name: str, is_switch: bool) -> list[list[str]]:
    flag, *values = group
    if is_switch and values:
        parents, dot, last = name.rpartition(".")
        both = f"--{name} --{parents}{dot}no-{last}"
        raise InputError(f"{' '.join(group)}: a switch, which takes no values; both ways are {both}")
    return [[flag, value] for value in values] if len(values) > 1 else [list(group)]


def _read(name: str, field: _Field, arguments: Sequence[str]) -> Any:
    def read(value: Any = field.default) -> Any:
        return value

    read.__annotations__["value"] = Annotated[field.kind, tyro.conf.arg(name=name)]
    return parse("sweep FILE", read, arguments)()
