"""Tokenised texts, and what a model reads and predicts of them."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from transformer_jax.data.packing import Ragged, offsets_of


@runtime_checkable
class TokenStore(Protocol):
    """The ids of texts, in memory or not."""

    @property
    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Tokens of source and target of each; no source has none."""

    def __len__(self) -> int: ...

    def take(self, indices: Int[np.ndarray, " n"]) -> "Tokens":
        """Those at `indices`, in that order."""


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The ids of texts with what stands around each; without sources they are plain texts."""

    source: Ragged | None
    target: Ragged

    def __len__(self) -> int:
        return len(self.target)

    @property
    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Tokens of source and target of each; no source has none."""
        source = np.zeros(len(self), np.int64) if self.source is None else self.source.lengths
        return np.stack([source, self.target.lengths], axis=1)

    def take(self, indices: Int[np.ndarray, " N"]) -> "Tokens":
        """Those at `indices`, in that order."""
        return Tokens(None if self.source is None else self.source.take(indices), self.target.take(indices))

    @staticmethod
    def joined(parts: "Sequence[Tokens]") -> "Tokens":
        """All of the first part, then those of the next; all have sources, or none has."""
        sources = [part.source for part in parts if part.source is not None]
        return Tokens(Ragged.joined(sources) if sources else None, Ragged.joined([part.target for part in parts]))


@dataclasses.dataclass(frozen=True)
class Examples:
    """What a model reads and predicts, of many examples.

    Attributes:
        source: what an encoder reads; None without one.
        target: what is predicted: by a decoder, which reads it one place later, or at `places` of the source.
        weights: how much each prediction counts; None is 1.
        places: where in its source each prediction is made; None where a decoder makes them.
    """

    source: Ragged | None
    target: Ragged
    weights: Ragged | None = None
    places: Ragged | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Tokens of source and target of each."""
        return Tokens(self.source, self.target).lengths

    def take(self, indices: Int[np.ndarray, " N"]) -> "Examples":
        """Those at `indices`, in that order."""

        def taken(ragged: Ragged | None) -> Ragged | None:
            return None if ragged is None else ragged.take(indices)

        return Examples(taken(self.source), self.target.take(indices), taken(self.weights), taken(self.places))

    @staticmethod
    def joined(parts: "Sequence[Examples]") -> "Examples":
        """All examples of the first part, then those of the next; of what only some have, the others get none."""

        def join(name: str) -> Ragged | None:
            own: list[Ragged | None] = [getattr(part, name) for part in parts]
            if all(ragged is None for ragged in own):
                return None
            return Ragged.joined([_filled(part, name) for part in parts])

        target = Ragged.joined([part.target for part in parts])
        return Examples(join("source"), target, join("weights"), join("places"))


def _filled(part: Examples, name: str) -> Ragged:
    """What a part has by this name; where it has nothing, no source, and weights of 1."""
    own: Ragged | None = getattr(part, name)
    if own is not None:
        return own
    if name == "weights":
        return Ragged(np.ones(len(part.target.values), np.float32), part.target.offsets)
    return Ragged(np.zeros(0, np.int32), offsets_of(np.zeros(len(part), np.int64)))
