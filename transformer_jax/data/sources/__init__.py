"""Where examples come from: pairs of texts or plain text, of one source for each kind of data."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from transformer_jax.config import (
    DataConfig,
    HuggingFaceDataset,
    JsonLines,
    Numerals,
    OwnData,
    Parquet,
    PlainText,
    SacrebleuSet,
    TensorflowDataset,
    TextFiles,
    TsvFiles,
)
from transformer_jax.data.sources.hugging_face import read_hugging_face
from transformer_jax.data.sources.json_lines import read_json_lines
from transformer_jax.data.sources.naming import naming
from transformer_jax.data.sources.numerals import NumeralsSource
from transformer_jax.data.sources.own import OwnSource
from transformer_jax.data.sources.pairs import Pairs
from transformer_jax.data.sources.parquet import read_parquet
from transformer_jax.data.sources.plain import read_plain
from transformer_jax.data.sources.sacrebleu_sets import read_sacrebleu
from transformer_jax.data.sources.source import Example, Grouped, Source, Split
from transformer_jax.data.sources.tensorflow_datasets import read_tensorflow_dataset
from transformer_jax.data.sources.text import read_text
from transformer_jax.data.sources.tsv import read_tsv
from transformer_jax.errors import InputError

__all__ = ["Example", "Pairs", "Source", "Split", "iterate", "load_pairs", "moved", "naming", "place_of"]


@dataclasses.dataclass(frozen=True)
class _Splits:
    """The source of data whose config says by split where to read."""

    data: Any
    read: Callable[[Any, Any], Iterator[Example]]

    def pairs(self, split: Split) -> Iterator[Example] | None:
        place = getattr(self.data, split)
        return None if place is None else self.read(self.data, place)


class _Kind(NamedTuple):
    source: Callable[[Any], Source]
    place: Callable[[Any, Split], str]  # where a split comes from, for messages


def _of_files(read: Callable[[Any, Any], Iterator[Example]]) -> _Kind:
    def place(data: Any, split: Split) -> str:
        files = getattr(data, split)
        return " and ".join(str(Path(data.dir, file)) for file in ((files,) if isinstance(files, str) else files))

    return _Kind(lambda data: _Splits(data, read), place)


def _of_sets(read: Callable[[Any, Any], Iterator[Example]]) -> _Kind:
    return _Kind(
        lambda data: _Splits(data, read), lambda data, split: f"split {getattr(data, split)!r} of {data.name!r}"
    )


_KINDS = {
    Numerals: _Kind(NumeralsSource, lambda data, split: "the generator of numerals"),
    TextFiles: _of_files(read_text),
    TsvFiles: _of_files(read_tsv),
    JsonLines: _of_files(read_json_lines),
    Parquet: _of_files(read_parquet),
    PlainText: _of_files(read_plain),
    HuggingFaceDataset: _of_sets(read_hugging_face),
    TensorflowDataset: _of_sets(read_tensorflow_dataset),
    SacrebleuSet: _Kind(
        lambda data: _Splits(data, read_sacrebleu),
        lambda data, split: f"{data.pair} of sacrebleu's set {getattr(data, split)!r}",
    ),
    OwnData: _Kind(OwnSource, lambda data, split: f"split {split!r} of {data.source!r}"),
}


def iterate(data: DataConfig, split: Split) -> Iterator[Example] | None:
    """The examples of a split one by one, so that a set may be larger than memory; None where there is no such split.

    Raises:
        InputError: at once or on the way, on data that is missing, damaged or not aligned, by file and line.
    """
    examples = _source(data).pairs(split)
    return None if examples is None else iter(examples)


def load_pairs(data: DataConfig, split: Split) -> Pairs | None:
    """The pairs of a split, all in memory; None where the experiment has no such split.

    Raises:
        InputError: as `iterate`.
    """
    examples, source = iterate(data, split), _source(data)
    if examples is None:
        return None
    pairs = Pairs.of(examples, source.groups(split) if isinstance(source, Grouped) else None)
    if pairs.groups is not None and len(pairs.groups) != len(pairs):
        raise InputError(f"{place_of(data, split)}: {len(pairs.groups)} groups of {len(pairs)} examples")
    return pairs


def _source(data: DataConfig) -> Source:
    return _KINDS[type(data)].source(data)


def moved(data: DataConfig, folder: str) -> DataConfig:
    """The same data in another folder.

    Raises:
        InputError: on data that is in no folder.
    """
    if isinstance(data, Numerals | SacrebleuSet):
        raise InputError(f"--data.dir {folder}: data of kind {data.kind} is in no folder")
    return dataclasses.replace(data, dir=folder)


def place_of(data: DataConfig, split: Split) -> str:
    """Where the pairs of a split that is there come from, for messages: its files, by their paths."""
    return _KINDS[type(data)].place(data, split)
