"""Packing: which pairs share a row, as pure functions of lengths, seed and epoch; and the arrays of such rows."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Num

WINDOW = 65_536  # examples planned at a time: rows do not cross windows, and memory stays small
_OPEN_ROWS = 16  # rows that may still take a pair: more of them fill better and plan slower


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths in one array: sequence i is values[offsets[i] : offsets[i + 1]]."""

    values: Num[np.ndarray, " values"]
    offsets: Int[np.ndarray, " offsets"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """The length of each sequence."""
        return np.diff(self.offsets)

    @staticmethod
    def of(sequences: "Sequence[np.ndarray]", dtype: Any = np.int32) -> "Ragged":
        """These sequences, end to end."""
        values = np.concatenate([np.zeros(0, dtype), *sequences]).astype(dtype, copy=False)
        return Ragged(values, offsets_of(np.fromiter(map(len, sequences), np.int64, len(sequences))))

    @staticmethod
    def joined(parts: "Sequence[Ragged]") -> "Ragged":
        """All sequences of the first part, then those of the next."""
        lengths = np.concatenate([part.lengths for part in parts])
        return Ragged(np.concatenate([part.values for part in parts]), offsets_of(lengths))

    def lengths_of(self, indices: np.ndarray) -> np.ndarray:
        """The lengths of the sequences at `indices`."""
        return self.offsets[indices + 1] - self.offsets[indices]

    def take(self, indices: np.ndarray) -> "Ragged":
        """The sequences at `indices`, in that order."""
        lengths = self.lengths_of(indices)
        offsets = offsets_of(lengths)
        # Where each value comes from: its place within its sequence, moved to where that sequence starts here.
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], lengths)
        return Ragged(self.values[places], offsets)

    def trimmed(self, before: int, behind: int) -> "Ragged":
        """The sequences without so many values at the beginning and the end of each, which all of them have."""
        kept = np.ones(len(self.values), bool)
        for place in range(before):
            kept[self.offsets[:-1] + place] = False
        for place in range(behind):
            kept[self.offsets[1:] - 1 - place] = False
        return Ragged(self.values[kept], offsets_of(self.lengths - before - behind))

    def cut(self, longest: int, behind: int) -> "Ragged":
        """The sequences with so many values at most; of a longer one so many at its end stay, and those before go."""
        lengths = self.lengths
        place = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], lengths)
        left = np.repeat(lengths, lengths) - place  # values from here to the end
        kept = (place < longest - behind) | (left <= behind)
        return Ragged(self.values[kept], offsets_of(np.minimum(lengths, longest)))

    def parts(self, parts: np.ndarray, counts: np.ndarray) -> "Ragged":
        """Of each sequence one of so many parts, which are about as long as each other.

        Args:
            parts: which one, counted from 0.
            counts: how many there are.
        """
        starts, ends = self.lengths * parts // counts, self.lengths * (parts + 1) // counts
        lengths = ends - starts
        offsets = offsets_of(lengths)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] + starts - offsets[:-1], lengths)
        return Ragged(self.values[places], offsets)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Where sequences of these lengths start when they lie end to end, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def plan(lengths: Int[np.ndarray, "N 2"], limits: tuple[int, int], seed: int, epoch: int) -> Ragged:
    """The rows of an epoch: the pairs that share a row, each pair in exactly one.

    First-fit over a permutation of the pairs, with few rows open at a time; the rows then come in an order of their
    own, so that how full a row is does not depend on when it comes.

    Args:
        lengths: tokens of source and target of each pair, none above its limit.
        limits: tokens that a row holds on each side.
        seed: of the run.
        epoch: from 0; each has another order.

    Returns:
        The indices of the pairs of each row.
    """
    random = np.random.Generator(np.random.PCG64((seed, epoch)))
    order = random.permutation(len(lengths))
    rows: list[list[int]] = []
    for start in range(0, len(order), WINDOW):
        window = order[start : start + WINDOW]
        rows += _first_fit(window, lengths[window], limits)
    offsets = offsets_of(np.fromiter(map(len, rows), np.int64, len(rows)))
    indices = np.fromiter((index for row in rows for index in row), np.int64, len(order))
    return Ragged(indices, offsets).take(random.permutation(len(rows)))


def _first_fit(indices: np.ndarray, lengths: np.ndarray, limits: tuple[int, int]) -> list[list[int]]:
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int, list[int]]] = []  # room for source, room for target, pairs
    for index, source, target in zip(indices.tolist(), *lengths.T.tolist(), strict=True):
        for place, (source_room, target_room, row) in enumerate(open_rows):
            if source <= source_room and target <= target_room:
                row.append(index)
                open_rows[place] = (source_room - source, target_room - target, row)
                break
        else:
            if len(open_rows) == _OPEN_ROWS:
                open_rows.remove(min(open_rows, key=lambda row: min(row[:2])))
            rows.append([index])
            open_rows.append((limits[0] - source, limits[1] - target, rows[-1]))
    return rows


def most_segments(lengths: Int[np.ndarray, "N 2"], limits: tuple[int, int]) -> int:
    """The most pairs of these lengths that any row can hold: a static shape, whatever the plan."""
    return min(
        int(np.searchsorted(np.cumsum(np.sort(side)), limit, side="right"))
        for side, limit in zip(lengths.T, limits, strict=True)
    )


class PackedRows(NamedTuple):
    """Rows of one side; segments count from 1 in each row, positions from 0 in each segment, both are 0 in padding."""

    tokens: Int[np.ndarray, "B T"]
    segment_ids: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"]


def pack(rows: Ragged, sentences: Ragged, length: int, pad_id: int = 0) -> PackedRows:
    """Rows of `length` tokens, the sentences of a row end to end, padding behind them.

    Args:
        rows: the indices of the sentences of each row; a row may be empty.
        sentences: the ids of every sentence, end token included.
        length: of a row; its sentences must fit.
        pad_id: the padding id.
    """
    tokens = lay(rows, sentences, length, pad_id).astype(np.int32, copy=False)
    segment_ids, positions = (np.zeros_like(tokens) for _ in range(2))
    for row, members in enumerate(rows):
        lengths = sentences.lengths_of(members)
        used = slice(int(lengths.sum()))
        segment_ids[row, used] = np.repeat(np.arange(1, len(members) + 1), lengths)
        positions[row, used] = np.arange(used.stop) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return PackedRows(tokens, segment_ids, positions)


def lay(rows: Ragged, sequences: Ragged, length: int, fill: int = 0) -> Num[np.ndarray, "B T"]:
    """Rows of `length` values, the sequences of a row end to end, `fill` behind them."""
    values = np.full((len(rows), length), fill, sequences.values.dtype)
    for row, members in enumerate(rows):
        chosen = sequences.take(members).values
        values[row, : len(chosen)] = chosen
    return values


def lay_places(rows: Ragged, places: Ragged, sentences: Ragged, length: int) -> Int[np.ndarray, "B T"]:
    """Places within sentences as places within the rows that the sentences lie in; 0 behind them."""
    lengths = sentences.lengths_of(rows.values)
    before = np.cumsum(lengths) - lengths
    starts = before - np.repeat(np.append(before, 0)[rows.offsets[:-1]], rows.lengths)
    chosen = places.take(rows.values)
    moved = Ragged((chosen.values + np.repeat(starts, chosen.lengths)).astype(np.int32), chosen.offsets)
    return lay(Ragged(np.arange(len(rows.values)), rows.offsets), moved, length)


def shift_right(
    targets: Int[np.ndarray, "B T"], positions: Int[np.ndarray, "B T"], start_id: int = 0
) -> Int[np.ndarray, "B T"]:
    """What the decoder reads to predict `targets`: in each segment the start token, then all targets but the last."""
    return np.where(positions == 0, start_id, np.roll(targets, 1, axis=1)).astype(np.int32)


def example_ids(rows: Ragged, segments: int) -> Int[np.ndarray, "B segments"]:
    """The indices of the sentences of each row, in order, -1 behind them."""
    ids = np.full((len(rows), segments), -1, np.int32)
    for row, members in enumerate(rows):
        ids[row, : len(members)] = members
    return ids
