"""Examples out of records: of JSON, of tables, of the sets of others."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from transformer_jax.data.sources.source import Example
from transformer_jax.errors import InputError

Labels: TypeAlias = Mapping[str, Callable[[int], str]]  # of a field whose numbers have names: the name of a number


class _RecordError(ValueError):
    """What is wrong with a record, without its place."""


def texts_of(records: Iterable[Any], source: str | None, target: str, labels: Labels, place: str) -> Iterator[Example]:
    """The texts in two fields of each record, or in one for plain text; numbers become their decimal text.

    Args:
        records: each by field, with inner fields in it.
        source: a field, or an inner one as translation.en; None for plain text.
        target: likewise.
        labels: how numbers in some of the fields are called.
        place: what the number of a record follows, for messages.

    Raises:
        InputError: on a field that is missing or holds no text.
    """
    for number, record in enumerate(records, start=1):
        try:
            yield None if source is None else _text(record, source, labels), _text(record, target, labels)
        except _RecordError as error:
            raise InputError(f"{place} {number}: {error}; see data.source and data.target") from None


def check_fields(source: str | None, target: str, known: Collection[str], owner: str) -> None:
    """Checks that fields, or the outermost ones around them, are among those of a set.

    Raises:
        InputError: on one that is not.
    """
    for flag, field in (("source", source), ("target", target)):
        if field is not None and not outermost([field], known) <= set(known):
            raise InputError(f"data.{flag}={field!r}: {owner} has the features {sorted(known)}")


def outermost(fields: Iterable[str | None], known: Collection[str]) -> set[str]:
    """The fields themselves, where they are known by their whole names, or those that they are in."""
    return {field if field in known else field.partition(".")[0] for field in fields if field is not None}


def labels_of(features: Any, fields: Iterable[str | None], kind: Any) -> Labels:
    """How the numbers in fields are called, as far as a set's feature of that name is of its kind for labels."""
    found: dict[str, Callable[[int], str]] = {}
    for field in fields:
        feature = features
        for part in _parts(field, features) if field else []:
            feature = feature[part] if hasattr(feature, "keys") and part in set(feature.keys()) else None
        if isinstance(feature, kind):
            found[str(field)] = feature.int2str
    return found


def _text(record: Any, field: str, labels: Labels) -> str:
    value = _value(record, field)
    if isinstance(value, np.generic):
        value = value.item()
    try:
        if field in labels and isinstance(value, int):
            if value < 0:
                raise ValueError("a number below 0 stands for no label")
            return labels[field](value)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()  # fails on half a surrogate pair, which JSON can write
            return value
    except (ValueError, IndexError) as error:
        raise _RecordError(f"{field!r} is {value!r}: {' '.join(str(error).split())}") from None
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    found = "null" if value is None else str(value) if isinstance(value, float) else type(value).__name__
    raise _RecordError(f"{field!r} is {found}, not text or a number")


def _value(record: Any, field: str) -> Any:
    value = record
    for part in _parts(field, record):
        if not isinstance(value, Mapping):
            raise _RecordError(f"{type(value).__name__} where an object has to be, with a field {part!r}")
        if part not in value:
            raise _RecordError(f"there is no field {field!r}; there are {', '.join(map(repr, value)) or 'none'}")
        value = value[part]
    return value


def _parts(field: str, record: Any) -> list[str]:
    return [field] if isinstance(record, Mapping) and field in record else field.split(".")
