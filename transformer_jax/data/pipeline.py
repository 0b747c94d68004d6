"""From examples to batches: packed by plan, placed on the mesh, made ahead by one thread."""

import collections
import contextlib
import functools
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple, cast

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from transformer_jax.config import BatchConfig
from transformer_jax.data import packing
from transformer_jax.data.batch import Batch, Side
from transformer_jax.data.examples import Examples
from transformer_jax.data.laps import Lap, Laps, WholeEpochs
from transformer_jax.data.packing import Ragged
from transformer_jax.data.tokenizer import SpecialTokens
from transformer_jax.sharding import batch_sharding, check_rows

_AHEAD = 2  # batches made before they are asked for


class _Planned(NamedTuple):
    """A lap and its rows."""

    lap: Lap
    rows: Ragged  # of the indices of its examples


class Pipeline:
    """The batches of a run: that of step n is a pure function of (laps, batch, seed, n).

    The rows of a lap are planned at once, and come in an order of their own; its last batch is filled up with empty
    rows.

    Args:
        laps: the examples.
        special: the special tokens of the target side, whose padding is that of both.
        batch: the shape of a batch.
        mesh: the devices that share each batch.
        seed: of the plans.

    Raises:
        InputError: where the devices do not divide the rows.
    """

    def __init__(self, laps: Laps, special: SpecialTokens, batch: BatchConfig, mesh: Mesh, seed: int) -> None:
        self._laps, self._special, self._batch, self._seed = laps, special, batch, seed
        self._sharding = batch_sharding(mesh)
        self._limits = (batch.source_length, batch.target_length)
        check_rows(mesh, batch.rows)
        self._steps: dict[int, int] = {}
        self._plans: dict[int, Future[_Planned]] = {}
        self._asking = threading.Lock()

    def _plan(self, lap: int) -> _Planned:
        """The rows of a lap; whoever asks first makes them, and the others wait."""
        with self._asking:
            found = self._plans.get(lap)
            mine = found is None
            if found is None:
                kept = {other: plan for other, plan in self._plans.items() if abs(other - lap) <= 1}
                self._plans = {**kept, lap: (found := Future())}
        if mine:
            try:
                found.set_result(self._make_plan(lap))
            except BaseException as error:
                found.set_exception(error)
        return found.result()

    def _make_plan(self, index: int) -> _Planned:
        lap = self._laps.lap(index)
        return _Planned(lap, packing.plan(lap.examples.lengths, self._limits, self._seed, index))

    def steps_of(self, lap: int) -> int:
        """Batches of a lap; laps differ by a few, since their rows do."""
        if lap not in self._steps:
            self._steps[lap] = -(-len(self._plan(lap).rows) // self._batch.rows)
        return self._steps[lap]

    def total_steps(self, epochs: int) -> int:
        """Batches of the first `epochs` epochs, counted where each is a lap of its own, else as the first lap says.

        To count the others, all of them would have to be drawn.
        """
        if isinstance(self._laps, WholeEpochs):
            return sum(map(self.steps_of, range(epochs)))
        return round(epochs * self._laps.examples / len(self._plan(0).lap.names) * self.steps_of(0))

    def following(self, lap: int, index: int) -> tuple[int, int]:
        """Lap and index of the batch behind another one."""
        return (lap, index + 1) if index + 1 < self.steps_of(lap) else (lap + 1, 0)

    def examples(self, lap: int, index: int) -> Int[np.ndarray, " N"]:
        """The names of all examples of a batch, on whichever process they are."""
        (_, names), rows = self._plan(lap)
        first, last = (min(row * self._batch.rows, len(rows)) for row in (index, index + 1))
        return names[rows.values[rows.offsets[first] : rows.offsets[last]]]

    def batch(self, lap: int, index: int) -> Batch:
        """One batch as global arrays, of which this process makes the rows of its own devices only."""
        rows = self._batch.rows

        @functools.cache  # the arrays of a batch ask for the same rows one after the other
        def leaves(start: int, stop: int) -> list[np.ndarray]:
            return list(jax.tree.leaves(self.rows(lap, index * rows + start, index * rows + stop)))

        def place(leaf: int, shape: tuple[int, ...]) -> jax.Array:
            return jax.make_array_from_callback(
                (rows, *shape[1:]),
                self._sharding,
                lambda part: leaves(*cast(tuple[slice, ...], part)[0].indices(rows)[:2])[leaf],
            )

        empty, structure = jax.tree.flatten(self.rows(lap, 0, 0))
        return jax.tree.unflatten(structure, [place(leaf, array.shape) for leaf, array in enumerate(empty)])

    def rows(self, lap: int, start: int, stop: int) -> Batch:
        """Rows start to stop - 1 of a lap as numpy arrays; those behind its last are empty."""
        (examples, names), plan = self._plan(lap)
        chosen = plan.take(np.arange(min(start, len(plan)), min(stop, len(plan))))
        missing = stop - start - len(chosen)
        chosen = Ragged(chosen.values, np.pad(chosen.offsets, (0, missing), mode="edge"))
        source = None
        if examples.source is not None:
            packed = packing.pack(chosen, examples.source, self._batch.source_length, self._special.pad)
            source = Side(**packed._asdict())
        named = Ragged(names[chosen.values], chosen.offsets)
        return Batch(source, self._target(chosen, examples), packing.example_ids(named, self._laps.segments))

    def _target(self, rows: Ragged, examples: Examples) -> Side:
        """What is predicted: by a decoder, which reads it one place later, or at places of the source."""
        length, special = self._batch.target_length, self._special
        targets, segments, positions = packing.pack(rows, examples.target, length, special.pad)
        if examples.places is None:
            tokens = packing.shift_right(targets, positions, special.start)
        else:
            assert examples.source is not None  # in which the places are
            tokens, positions = targets, packing.lay_places(rows, examples.places, examples.source, length)
        weights = (segments > 0).astype(np.float32)
        if examples.weights is not None:
            weights = packing.lay(rows, examples.weights, length)
        return Side(tokens, segments, positions, targets, weights)

    def batches(self, lap: int = 0, index: int = 0) -> Generator[Batch, None, None]:
        """The batches from this one on, without end; threads make them ahead, until the generator is closed."""
        with (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="laps") as planner,
            contextlib.closing(_ahead(self, self._positions(lap, index, planner))) as batches,
        ):
            yield from batches

    def one_epoch(self, epoch: int = 0) -> Generator[Batch, None, None]:
        """The batches of one epoch, made ahead likewise."""
        laps = range(epoch * self._laps.per_epoch, (epoch + 1) * self._laps.per_epoch)
        return _ahead(self, ((lap, index) for lap in laps for index in range(self.steps_of(lap))))

    def _positions(self, lap: int, index: int, planner: Executor) -> Iterator[tuple[int, int]]:
        while True:
            yield lap, index
            if index == self.steps_of(lap) // 2:
                planner.submit(self._plan, lap + 1)
            lap, index = self.following(lap, index)


def _ahead(pipeline: Pipeline, positions: Iterator[tuple[int, int]]) -> Generator[Batch, None, None]:
    """The batches at `positions`, made by one thread, which ends with the generator."""

    def make_next() -> Batch | None:
        position = next(positions, None)  # in the thread, since the next lap may have to be planned first
        return None if position is None else pipeline.batch(*position)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
        waiting = collections.deque(thread.submit(make_next) for _ in range(_AHEAD))
        try:
            while (batch := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(make_next))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)
