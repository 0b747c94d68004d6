"""Which examples come when: an epoch, or a part of it, at a time, since rows are planned for so many at once."""

import abc
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from transformer_jax.data.corpus import Corpus
from transformer_jax.data.examples import Examples
from transformer_jax.data.keys import ORDER
from transformer_jax.data.packing import WINDOW


class Lap(NamedTuple):
    """Examples among which rows are planned, and what each is known by."""

    examples: Examples
    names: Int[np.ndarray, " N"]


class Laps(abc.ABC):
    """The laps of a run, one behind the other.

    Attributes:
        examples: of an epoch.
        per_epoch: laps of an epoch: in these every example comes once; of a mixture, as many as there are in all.
        segments: the most examples that a row can hold.
    """

    examples: int
    per_epoch: int
    segments: int

    @abc.abstractmethod
    def lap(self, index: int) -> Lap:
        """One of them, a pure function of its number."""


class WholeEpochs(Laps):
    """All examples of a corpus at once, the same in every epoch."""

    per_epoch = 1

    def __init__(self, corpus: Corpus) -> None:
        everything = np.arange(len(corpus))
        self._lap = Lap(corpus.draw(0, everything), corpus.names(everything))
        self.examples, self.segments = len(corpus), corpus.segments

    def lap(self, index: int) -> Lap:
        """Always the same; the plan of their rows differs."""
        return self._lap


class Windows(Laps):
    """The examples of each epoch in an order of its own, so many at a time."""

    def __init__(self, corpus: Corpus, seed: int, window: int = WINDOW) -> None:
        self._stream, self.segments = _Stream(corpus, seed), corpus.segments
        self.examples, self.per_epoch = len(corpus), -(-len(corpus) // window)
        self._window = window

    def lap(self, index: int) -> Lap:
        """The next examples of its epoch; the last lap of it has fewer."""
        epoch, window = divmod(index, self.per_epoch)
        start = epoch * self._stream.size + window * self._window
        return self._stream.take(start, min(start + self._window, (epoch + 1) * self._stream.size))


class Mixture(Laps):
    """Examples of several corpora side by side, by rates, each corpus going round as often as it has to.

    Args:
        corpora: what is mixed.
        rates: how many of each there are, relative to each other.
        seed: of the order of examples.
        window: examples of a lap.
    """

    def __init__(self, corpora: Sequence[Corpus], rates: Sequence[float], seed: int, window: int = WINDOW) -> None:
        self._streams = [_Stream(corpus, seed, index) for index, corpus in enumerate(corpora)]
        names = [int(corpus.names(np.array([len(corpus) - 1]))[0]) + 1 for corpus in corpora]
        self._firsts = np.cumsum([0, *names[:-1]])
        self._shares = np.array(rates) / np.sum(rates)
        self.examples = sum(map(len, corpora))
        self._window = min(window, self.examples)
        self.per_epoch = -(-self.examples // self._window)
        self.segments = sum(corpus.segments for corpus in corpora)

    def lap(self, index: int) -> Lap:
        """Of each corpus as many as bring all that came so far to its rate."""
        parts = []
        for stream, first, share in zip(self._streams, self._firsts, self._shares, strict=True):
            start, stop = (int(np.floor(share * self._window * lap)) for lap in (index, index + 1))
            if start < stop:
                lap = stream.take(start, stop)
                parts.append(Lap(lap.examples, lap.names + first))
        return _joined(parts)


class _Stream:
    """The examples of a corpus without end: each epoch's in an order of its own, one epoch behind the other."""

    def __init__(self, corpus: Corpus, seed: int, index: int = 0) -> None:
        self._corpus, self._seed, self._index, self.size = corpus, seed, index, len(corpus)
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> Int[np.ndarray, " size"]:
        numbers = np.arange(self.size, dtype=np.int32)  # of tens of millions, half the memory
        return np.random.Generator(np.random.PCG64((self._seed, epoch, self._index, ORDER))).permutation(numbers)

    def take(self, start: int, stop: int) -> Lap:
        """Those at these places of the stream."""
        parts = []
        while start < stop:
            epoch, first = divmod(start, self.size)
            last = min(self.size, first + stop - start)
            chosen = self._order(epoch)[first:last].astype(np.int64)
            parts.append(Lap(self._corpus.draw(epoch, chosen), self._corpus.names(chosen)))
            start += last - first
        return _joined(parts)


def _joined(laps: Sequence[Lap]) -> Lap:
    return Lap(Examples.joined([lap.examples for lap in laps]), np.concatenate([lap.names for lap in laps]))


def laps_of(corpora: Sequence[Corpus], rates: Sequence[float], seed: int) -> Laps:
    """The laps of one corpus, or of several that are mixed."""
    if len(corpora) > 1:
        return Mixture(corpora, rates, seed)
    (corpus,) = corpora
    return WholeEpochs(corpus) if corpus.held and not corpus.drawn else Windows(corpus, seed)
