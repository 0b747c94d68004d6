"""Where pairs of strings come from: one loader for each kind of source."""

from typing import Literal, TypeAlias

from transformer_jax.config import DataConfig, Numerals, TextFiles, TsvFiles
from transformer_jax.data.sources.files import load_text, load_tsv
from transformer_jax.data.sources.numerals import load_numerals
from transformer_jax.data.sources.pairs import Pairs
from transformer_jax.data.sources.tensorflow_datasets import load_tensorflow_dataset

__all__ = ["Pairs", "Split", "load_pairs"]

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
