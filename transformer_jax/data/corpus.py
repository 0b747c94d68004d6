"""The texts that one objective learns from, and their examples, the same whenever they are drawn again."""

import abc
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from transformer_jax.data import packing
from transformer_jax.data.examples import Examples, Tokens, TokenStore
from transformer_jax.data.objectives import Limits, Objective
from transformer_jax.data.packing import Ragged
from transformer_jax.data.tokenizer import SpecialTokens, Tokenizers
from transformer_jax.errors import InputError

_EPOCH = 2**40  # above all numbers of examples, so that no two draws share a generator


class Corpus(abc.ABC):
    """Examples by their numbers, from 0 to the length.

    Attributes:
        total: texts or pairs there are.
        dropped: why and how many of them are in no example.
        drawn: whether an example is another one in every epoch.
        held: whether all of them are in memory.
        segments: the most of them that a row can hold.
    """

    total: int
    dropped: Mapping[str, int]
    drawn: bool
    held: bool
    segments: int

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def names(self, chosen: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """What these examples are known by: numbers among all that there are, dropped ones included."""

    @abc.abstractmethod
    def draw(self, epoch: int, chosen: Int[np.ndarray, " n"]) -> Examples:
        """These examples, as they are in an epoch."""


class PairCorpus(Corpus):
    """A corpus of tokenised pairs, or of texts with a class each, the same in every epoch.

    Pairs with an empty side or more tokens than a row holds are dropped and counted; nothing is cut.

    Args:
        tokens: of all pairs.
        objective: what becomes of them.
        tokenizers: of both sides.
        limits: tokens of a row.

    Raises:
        InputError: where nothing is left.
    """

    drawn = False

    def __init__(self, tokens: TokenStore, objective: Objective, tokenizers: Tokenizers, limits: Limits) -> None:
        self._tokens, self._objective, self.total = tokens, objective, len(tokens)
        self.held = isinstance(tokens, Tokens)
        lengths = objective.lengths(tokens.lengths)
        self._names, self.dropped = _usable(tokens.lengths, lengths, _frames(objective, tokenizers), limits)
        if not len(self._names):
            raise InputError(_nothing(self.total, self.dropped))
        if self.held:
            self.segments = packing.most_segments(lengths[self._names], limits)
        else:  # without looking for the shortest of many millions
            self.segments = segments_at_most(objective, tokenizers, limits)

    def __len__(self) -> int:
        return len(self._names)

    def names(self, chosen: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Numbers of pairs."""
        return self._names[chosen]

    def draw(self, epoch: int, chosen: Int[np.ndarray, " n"]) -> Examples:
        """The same in every epoch."""
        return self._objective.examples(self._tokens.take(self._names[chosen]), no_generator)


class TextCorpus(Corpus):
    """A corpus of plain tokenised texts; longer ones are cut into parts of about the same size, each an example.

    Args:
        tokens: of all texts.
        objective: what becomes of them.
        special: the special tokens, some of which stand around each text.
        limits: tokens of a row.
        seed: of what is drawn.

    Raises:
        InputError: where there is no text.
    """

    def __init__(
        self, tokens: TokenStore, objective: Objective, special: SpecialTokens, limits: Limits, seed: int
    ) -> None:
        assert objective.longest is not None  # as those of plain texts have it
        self._tokens, self._objective, self._special, self._seed = tokens, objective, special, seed
        self.drawn, self.held, frames = objective.drawn, isinstance(tokens, Tokens), special.frames
        said, own = tokens.lengths[:, 1] > frames, 0 if objective.framed else frames
        parts = np.where(said, -(-(np.maximum(tokens.lengths[:, 1], own) - own) // objective.longest), 0)
        self.total, self.dropped = len(tokens), {"no text": int(np.sum(~said))}
        self._firsts = packing.offsets_of(parts)  # the number of the first part of each text
        if not len(self):
            raise InputError(_nothing(self.total, self.dropped))
        self.segments = min(limits[0] // max(frames, 1), limits[1]) if self.drawn else limits[1] // (1 + frames)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def names(self, chosen: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Numbers of parts."""
        return chosen

    def draw(self, epoch: int, chosen: Int[np.ndarray, " n"]) -> Examples:
        """Each by a generator that depends on seed, epoch and example alone."""

        def generator(index: int) -> np.random.Generator:
            key = np.array([self._seed, epoch * _EPOCH + int(chosen[index])], np.uint64)  # by itself numpy takes floats
            return np.random.Generator(np.random.Philox(key=key))

        return self._objective.examples(Tokens(None, self._parts(chosen)), generator)

    def _parts(self, chosen: Int[np.ndarray, " n"]) -> Ragged:
        """The tokens of these parts."""
        texts = np.searchsorted(self._firsts, chosen, side="right") - 1
        whole, before = self._tokens.take(texts).target, len(self._special.before)
        if not self._objective.framed:
            whole = whole.trimmed(before, self._special.frames - before)
        return whole.parts(chosen - self._firsts[texts], self._firsts[texts + 1] - self._firsts[texts])


def no_generator(index: int) -> np.random.Generator:
    """What draws where nothing is drawn."""
    raise AssertionError("of pairs nothing is drawn")


def _frames(objective: Objective, tokenizers: Tokenizers) -> tuple[int, int]:
    """What stands around the text of each side, in tokens; nothing around a class."""
    return tokenizers.source.special.frames, tokenizers.target.special.frames if objective.writes else 0


def segments_at_most(objective: Objective, tokenizers: Tokenizers, limits: Limits) -> int:
    """The most pairs that a row can hold, were there nothing but pairs of a token on each side."""
    least = objective.lengths(np.array([_frames(objective, tokenizers)]) + 1)[0]
    return int(min(limit // own for limit, own in zip(limits, least, strict=True) if own))


def _usable(
    lengths: Int[np.ndarray, "N 2"], examples: Int[np.ndarray, "N 2"], frames: tuple[int, int], limits: Limits
) -> tuple[Int[np.ndarray, " usable"], dict[str, int]]:
    """The indices of the pairs that can be used, and how many of the others there are for each reason."""
    reasons = {
        "an empty side": (lengths <= frames).any(axis=1),  # nothing but what stands around every sentence
        f"a source over {limits[0]} tokens": examples[:, 0] > limits[0],
        f"a target over {limits[1]} tokens": examples[:, 1] > limits[1],
    }
    usable = np.ones(len(lengths), bool)
    dropped = {}
    for reason, holds in reasons.items():
        dropped[reason] = int(np.sum(usable & holds))
        usable &= ~holds
    return np.flatnonzero(usable).astype(np.int32), dropped  # of tens of millions, half the memory


def _nothing(total: int, dropped: Mapping[str, int]) -> str:
    if not total:
        return "there are no pairs in the data; give others"
    reasons = ", ".join(f"{count} have {reason}" for reason, count in dropped.items() if count)
    return f"none of the {total} pairs can be used: {reasons}; give others or longer rows"
