"""From pairs to batches: tokenised once, packed by plan, placed on the mesh, made ahead by one thread."""

import collections
import functools
import hashlib
import itertools
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int
from tqdm import tqdm

from transformer_jax import processes
from transformer_jax.config import BatchConfig
from transformer_jax.data import packing
from transformer_jax.data.batch import Batch, Side
from transformer_jax.data.packing import Ragged
from transformer_jax.data.sources import Pairs
from transformer_jax.data.tokenizer import Tokenizer, Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import written_whole
from transformer_jax.sharding import batch_sharding, check_rows

_FORMAT = 1  # of the cache files; another number makes them all anew
_CHUNK = 10_000  # sentences tokenised between two updates of the progress bar
_AHEAD = 2  # batches made before they are asked for


class Pipeline:
    """The batches of a run: that of step n is a pure function of (pairs, tokenizers, batch, seed, n).

    Pairs with an empty side or more tokens than a row holds are dropped and counted; nothing is cut. Each epoch has
    every other pair once, in an order of its own; its last batch is filled up with empty rows.

    Args:
        pairs: of one split.
        tokenizers: of both sides.
        batch: the shape of a batch.
        mesh: the devices that share each batch.
        seed: of the order of the pairs.
        cache_dir: folder for the tokenised pairs, made if need be; found again by their content.

    Attributes:
        total: pairs there are.
        kept: pairs in the batches.
        dropped: why and how many of the others.

    Raises:
        InputError: where no pair is left, or the devices do not divide the rows.
    """

    def __init__(
        self, pairs: Pairs, tokenizers: Tokenizers, batch: BatchConfig, mesh: Mesh, seed: int, cache_dir: Path
    ) -> None:
        self._batch = batch
        self._seed = seed
        self._sharding = batch_sharding(mesh)
        self._limits = (batch.source_length, batch.target_length)
        check_rows(mesh, batch.rows)
        self._source, self._target = _tokenise(pairs, tokenizers, cache_dir)
        lengths = np.stack([self._source.lengths, self._target.lengths], axis=1)
        self._special = tokenizers.target.special
        frames = len(tokenizers.source.framed([])), len(tokenizers.target.framed([]))
        usable, self.dropped = _usable(lengths, self._limits, frames)
        self.total, self.kept = len(pairs), len(usable)
        if not self.kept:
            raise InputError(_no_pairs(self.total, self.dropped))
        self._usable, self._lengths = usable, lengths[usable]
        self._segments = packing.most_segments(self._lengths, self._limits)
        self._steps: dict[int, int] = {}
        self._plan = functools.lru_cache(maxsize=2)(self._make_plan)

    def _make_plan(self, epoch: int) -> Ragged:
        rows = packing.plan(self._lengths, self._limits, self._seed, epoch)
        return Ragged(self._usable[rows.values], rows.offsets)

    def steps_per_epoch(self, epoch: int) -> int:
        """Batches of an epoch; epochs differ by a few, since their rows do."""
        if epoch not in self._steps:
            self._steps[epoch] = -(-len(self._plan(epoch)) // self._batch.rows)
        return self._steps[epoch]

    def total_steps(self, epochs: int) -> int:
        """Batches of the first `epochs` epochs."""
        return sum(map(self.steps_per_epoch, range(epochs)))

    def following(self, epoch: int, index: int) -> tuple[int, int]:
        """Epoch and index of the batch behind another one."""
        return (epoch, index + 1) if index + 1 < self.steps_per_epoch(epoch) else (epoch + 1, 0)

    def examples(self, epoch: int, index: int) -> Int[np.ndarray, " N"]:
        """The indices of all pairs of a batch, on whichever process they are."""
        plan = self._plan(epoch)
        first, last = (min(row * self._batch.rows, len(plan)) for row in (index, index + 1))
        return plan.values[plan.offsets[first] : plan.offsets[last]]

    def batch(self, epoch: int, index: int) -> Batch:
        """One batch as global arrays, of which this process makes the rows of its own devices only."""
        rows = self._batch.rows

        @functools.cache  # the arrays of a batch ask for the same rows one after the other
        def leaves(start: int, stop: int) -> list[np.ndarray]:
            return list(jax.tree.leaves(self.rows(epoch, index * rows + start, index * rows + stop)))

        def place(leaf: int, shape: tuple[int, ...]) -> jax.Array:
            return jax.make_array_from_callback(
                (rows, *shape[1:]),
                self._sharding,
                lambda part: leaves(*cast(tuple[slice, ...], part)[0].indices(rows)[:2])[leaf],
            )

        empty, structure = jax.tree.flatten(self.rows(epoch, 0, 0))
        return jax.tree.unflatten(structure, [place(leaf, array.shape) for leaf, array in enumerate(empty)])

    def rows(self, epoch: int, start: int, stop: int) -> Batch:
        """Rows start to stop - 1 of an epoch as numpy arrays; those behind its last are empty."""
        plan = self._plan(epoch)
        chosen = plan.take(np.arange(min(start, len(plan)), min(stop, len(plan))))
        missing = stop - start - len(chosen)
        chosen = Ragged(chosen.values, np.pad(chosen.offsets, (0, missing), mode="edge"))
        source = packing.pack(chosen, self._source, self._batch.source_length, self._special.pad)
        target = packing.pack(chosen, self._target, self._batch.target_length, self._special.pad)
        return Batch(
            source=Side(**source._asdict()),
            target=Side(
                tokens=packing.shift_right(target.tokens, target.positions, self._special.start),
                segment_ids=target.segment_ids,
                positions=target.positions,
                targets=target.tokens,
                weights=(target.segment_ids > 0).astype(np.float32),
            ),
            example_ids=packing.example_ids(chosen, self._segments),
        )

    def batches(self, epoch: int = 0, index: int = 0) -> Generator[Batch, None, None]:
        """The batches from this one on, without end; a thread makes them ahead, until the generator is closed."""
        return _ahead(self, self._positions(epoch, index))

    def one_epoch(self, epoch: int = 0) -> Generator[Batch, None, None]:
        """The batches of one epoch, made ahead likewise."""
        return _ahead(self, ((epoch, index) for index in range(self.steps_per_epoch(epoch))))

    def _positions(self, epoch: int, index: int) -> Iterator[tuple[int, int]]:
        while True:
            yield epoch, index
            epoch, index = self.following(epoch, index)


def _ahead(pipeline: Pipeline, positions: Iterator[tuple[int, int]]) -> Generator[Batch, None, None]:
    """The batches at `positions`, made by one thread, which ends with the generator."""

    def make_next() -> Batch | None:
        position = next(positions, None)  # in the thread, since the next epoch may have to be planned first
        return None if position is None else pipeline.batch(*position)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
        waiting = collections.deque(thread.submit(make_next) for _ in range(_AHEAD))
        try:
            while (batch := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(make_next))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)


def _usable(lengths: np.ndarray, limits: tuple[int, int], frames: tuple[int, int]) -> tuple[np.ndarray, dict[str, int]]:
    """The indices of the pairs that can be used, and how many of the others there are for each reason."""
    reasons = {
        "an empty side": (lengths <= frames).any(axis=1),  # nothing but what stands around every sentence
        f"a source over {limits[0]} tokens": lengths[:, 0] > limits[0],
        f"a target over {limits[1]} tokens": lengths[:, 1] > limits[1],
    }
    usable = np.ones(len(lengths), bool)
    dropped = {}
    for reason, holds in reasons.items():
        dropped[reason] = int(np.sum(usable & holds))
        usable &= ~holds
    return np.flatnonzero(usable), dropped


def _no_pairs(total: int, dropped: Mapping[str, int]) -> str:
    if not total:
        return "there are no pairs in the data; give others"
    reasons = ", ".join(f"{count} have {reason}" for reason, count in dropped.items() if count)
    return f"none of the {total} pairs can be used: {reasons}; give others or longer rows"


def _tokenise(pairs: Pairs, tokenizers: Tokenizers, cache_dir: Path) -> tuple[Ragged, Ragged]:
    """The ids of both sides, each sentence with its end token, from the cache where it has them."""
    key = hashlib.sha256(f"{_FORMAT} {pairs.digest} {tokenizers.digest}".encode()).hexdigest()
    path = cache_dir / f"tokens-{key[:32]}.npz"
    cached = _read_cache(path)
    if not processes.highest(cached is None) and cached is not None:
        return cached
    index, count = jax.process_index(), jax.process_count()
    share = slice(len(pairs) * index // count, len(pairs) * (index + 1) // count)
    assert pairs.sources is not None
    texts = pairs.sources[share], pairs.targets[share]
    hidden = None if processes.is_coordinator() else True  # None shows it on a terminal only
    with tqdm(total=2 * len(texts[0]), desc="Tokenising", unit=" sentences", disable=hidden) as bar:
        source, target = (
            _encode(tokenizer, side, bar)
            for tokenizer, side in zip((tokenizers.source, tokenizers.target), texts, strict=True)
        )
    if count > 1:
        source, target = _exchange(path, source, target)
    if processes.is_coordinator():
        _write_cache(path, source, target)
    return source, target


def _exchange(path: Path, source: Ragged, target: Ragged) -> tuple[Ragged, Ragged]:
    """The ids of all pairs, of which each process made a share, by files beside the cache, which all of them see."""
    parts = [path.with_name(f"{path.stem}.part-{index}.npz") for index in range(jax.process_count())]
    _write_cache(parts[jax.process_index()], source, target)
    processes.barrier("tokenised")
    shares = [_read_cache(part) for part in parts]
    found = [share for share in shares if share is not None]
    if len(found) < len(parts):
        missing = parts[shares.index(None)]
        raise InputError(f"{missing}: not seen by process {jax.process_index()}; --workdir is a folder that all share")
    sources, targets = zip(*found, strict=True)
    processes.barrier("read")
    parts[jax.process_index()].unlink()
    return Ragged.joined(sources), Ragged.joined(targets)


def _encode(tokenizer: Tokenizer, texts: Sequence[str], bar: tqdm) -> Ragged:
    values, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for start in range(0, len(texts), _CHUNK):
        chunk = list(map(tokenizer.framed, tokenizer.encode(texts[start : start + _CHUNK])))
        lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
        values.append(np.fromiter(itertools.chain.from_iterable(chunk), np.int32))
        bar.update(len(chunk))
    return Ragged(np.concatenate(values), packing.offsets_of(np.concatenate(lengths)))


def _read_cache(path: Path) -> tuple[Ragged, Ragged] | None:
    """What `_write_cache` wrote; None where there is nothing, or a damaged file."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            source, target = (
                Ragged(arrays[f"{side}_values"], arrays[f"{side}_offsets"]) for side in ("source", "target")
            )
            return source, target
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _write_cache(path: Path, source: Ragged, target: Ragged) -> None:
    with written_whole(path) as temporary:
        np.savez(
            temporary,
            source_values=source.values,
            source_offsets=source.offsets,
            target_values=target.values,
            target_offsets=target.offsets,
        )
