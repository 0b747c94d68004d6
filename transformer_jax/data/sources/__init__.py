"""Where pairs of strings come from: one loader for each kind of source."""

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias

from transformer_jax.config import DataConfig, Numerals, TensorflowDataset, TextFiles, TsvFiles
from transformer_jax.data.sources.files import load_text, load_tsv
from transformer_jax.data.sources.numerals import load_numerals
from transformer_jax.data.sources.pairs import Pairs
from transformer_jax.data.sources.tensorflow_datasets import load_tensorflow_dataset
from transformer_jax.errors import InputError

__all__ = ["Pairs", "Split", "load_pairs", "moved", "place_of"]

Split: TypeAlias = Literal["train", "validation", "test"]


def load_pairs(data: DataConfig, split: Split) -> Pairs | None:
    """The pairs of a split; None where the experiment has no such split.

    Raises:
        InputError: on data that is missing, damaged or not aligned, by file and line.
    """
    if isinstance(data, Numerals):
        return load_numerals(data, split)
    place = getattr(data, split)  # files, or the name of a split
    if place is None:
        return None
    if isinstance(data, TextFiles):
        return load_text(data, place)
    if isinstance(data, TsvFiles):
        return load_tsv(data, place)
    return load_tensorflow_dataset(data, place)


def moved(data: DataConfig, folder: str) -> DataConfig:
    """The same data in another folder.

    Raises:
        InputError: on data that is in no folder.
    """
    if isinstance(data, Numerals):
        raise InputError(f"--data.dir {folder}: data of kind {data.kind} is in no folder")
    return dataclasses.replace(data, dir=folder)


def place_of(data: DataConfig, split: Split) -> str:
    """Where the pairs of a split that is there come from, for messages: its files, by their paths."""
    if isinstance(data, Numerals):
        return "the generator of numerals"
    place = getattr(data, split)
    if isinstance(data, TensorflowDataset):
        return f"split {place!r} of {data.name!r}"
    files = place if isinstance(data, TextFiles) else (place,)
    return " and ".join(str(Path(data.dir, file)) for file in files)
