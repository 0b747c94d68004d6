"""The points of a sweep: all values of some fields of an experiment, or some of them drawn."""

import dataclasses
import hashlib
import heapq
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from transformer_jax.checked import config
from transformer_jax.config import Experiment, from_json, to_json
from transformer_jax.errors import InputError

Value: TypeAlias = bool | int | float | str | None

LONGEST_NAME = 160  # of 255 bytes that file systems allow, with room for what is written beside


@config
class Point:
    """One run of a sweep."""

    name: str  # of its run folder
    values: dict[str, Value]  # of the fields that differ, by their dotted names


@config
class Sweep:
    """A sweep, whole; saved in its folder as sweep.json."""

    experiment: Experiment  # with the first value of each field
    grid: dict[str, tuple[Value, ...]]  # the values of each field
    points: tuple[Point, ...]  # in the order they are trained in; they are counted from 1

    def at(self, point: Point) -> Experiment:
        """The experiment of a point."""
        return _with_values(self.experiment, point.values)

    def to_json(self) -> str:
        """The sweep as indented JSON, by which `checked_from_json` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def make(
    experiment: Experiment, grid: Mapping[str, Sequence[Value]], sample: int | None = None, seed: int = 0
) -> Sweep:
    """The sweep over all combinations of values, the last field changing fastest, or over some of them.

    Args:
        experiment: with a value of each field, whichever.
        grid: the values of each field, by its dotted name.
        sample: so many points, without repetition; None is all. More of the same seed begin with the same points.
        seed: which of them.

    Raises:
        InputError: on a value that is there twice, on too many points to be drawn, and on a point whose experiment is
            refused.
    """
    for name, values in grid.items():
        if again := [value for index, value in enumerate(values) if repr(value) in map(repr, values[:index])]:
            raise InputError(f"--{name} {again[0]}: stands there twice")
    total = math.prod(map(len, grid.values()))
    if sample is not None and not 1 <= sample <= total:
        raise InputError(f"--sample {sample}: the grid has {total} points; choose 1 to {total}")
    combinations = itertools.product(*grid.values())
    points: Iterable[Point] = (_point(dict(zip(grid, values, strict=True))) for values in combinations)
    if sample is not None:
        points = _drawn(points, sample, seed)
    sweep = Sweep(
        experiment=experiment, grid={name: tuple(values) for name, values in grid.items()}, points=tuple(points)
    )
    for point in sweep.points:
        _check(sweep, point)
    return sweep


def _point(values: dict[str, Value]) -> Point:
    return Point(name=_name(values), values=values)


def _name(values: Mapping[str, Value]) -> str:
    """A file name that tells the values, the same in whichever order; a digest tells what it cannot."""
    told = ",".join(f"{field}={values[field]}" for field in sorted(values))
    name = re.sub(r"[^A-Za-z0-9.,=+_-]", "-", told)[:LONGEST_NAME]
    return name if name == told else f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _drawn(points: Iterable[Point], count: int, seed: int) -> list[Point]:
    """Those with the smallest hashes, which no version of Python changes."""

    def draw(point: Point) -> str:
        return hashlib.sha256(f"{seed} {point.name}".encode()).hexdigest()

    return heapq.nsmallest(count, points, key=draw)


def _check(sweep: Sweep, point: Point) -> None:
    try:
        sweep.at(point)
    except InputError as error:
        flags = " ".join(f"--{name} {value}" for name, value in point.values.items())
        raise InputError(f"{flags}: {error}") from None


def _with_values(experiment: Experiment, values: Mapping[str, Value]) -> Experiment:
    tree: Any = json.loads(to_json(experiment))
    for name, value in values.items():
        *parents, field = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch[int(parent) if isinstance(branch, list) else parent]
        branch[field] = value
    return from_json(json.dumps(tree))
