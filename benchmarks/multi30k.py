"""Batches of Multi30k: rows packed as ours are, and sentences of like lengths side by side, as the peers take them."""

import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from benchmarks.base import Pair
from transformer_jax import sharding
from transformer_jax.config import Experiment, TextFiles
from transformer_jax.data.batch import Batch
from transformer_jax.data.batches import batches_of
from transformer_jax.data.sources import load_pairs
from transformer_jax.data.tokenizer import EOS_ID, train_tokenizers
from transformer_jax.runs import load_experiment

FILE = Path(__file__).parents[1] / "experiments" / "multi30k_en_de.py"


def experiment(folder: str) -> Experiment:
    """The experiment that ships, with its files in a folder."""
    shipped = load_experiment(FILE)
    assert isinstance(shipped.data, TextFiles)
    return replace(shipped, data=replace(shipped.data, dir=folder))


def batches(folder: str, count: int) -> tuple[list[Batch], list[Pair]]:
    """The first packed batches of an epoch, and as many of sentences of like lengths with as many target places.

    The latter are drawn evenly from all there are.
    """
    config = experiment(folder)
    pairs = load_pairs(config.data, "train")
    assert pairs is not None
    tokenizers = train_tokenizers(config.tokenizer, config.model, pairs.sources, pairs.targets)
    mesh, rows = sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1]), config.batch.rows
    with tempfile.TemporaryDirectory() as cache:
        pipeline = batches_of(pairs, tokenizers, config.batch, mesh, config.seed, Path(cache))
    packed = [pipeline.rows(0, index * rows, (index + 1) * rows) for index in range(count)]
    sources, targets = (
        [[*ids, EOS_ID] for ids in tokenizer.encode(texts)]
        for tokenizer, texts in ((tokenizers.source, pairs.sources), (tokenizers.target, pairs.targets))
    )
    buckets = _by_length(sources, targets, rows * config.batch.target_length)
    chosen = np.linspace(0, len(buckets) - 1, count + 2)[1:-1].round().astype(int)
    return packed, [_padded(sources, targets, buckets[index]) for index in chosen]


def _by_length(sources: list[list[int]], targets: list[list[int]], places: int) -> list[list[int]]:
    """The sentences in batches of like lengths, each of so many places of the target at most."""
    lengths = [(len(target), len(source)) for source, target in zip(sources, targets, strict=True)]
    found: list[list[int]] = [[]]
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if (len(found[-1]) + 1) * lengths[index][0] > places:
            found.append([])
        found[-1].append(index)
    return found


def _padded(sources: list[list[int]], targets: list[list[int]], chosen: list[int]) -> Pair:
    def side(sentences: list[list[int]]) -> np.ndarray:
        longest = max(len(sentences[index]) for index in chosen)
        rows = [sentences[index] + [0] * (longest - len(sentences[index])) for index in chosen]
        return np.array(rows, np.int32)

    return side(sources), side(targets)
