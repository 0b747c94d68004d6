"""Subword regularisation: pairs cut into other pieces in every epoch (Kudo, 2018; Provilkov et al., 2020)."""

import hashlib

import numpy as np
from jaxtyping import Int

from transformer_jax.data.corpus import Corpus
from transformer_jax.data.examples import Examples, Tokens
from transformer_jax.data.objectives import Limits, Objective
from transformer_jax.data.packing import Ragged
from transformer_jax.data.sources import Pairs
from transformer_jax.data.tokenizer import Tokenizer, Tokenizers


class SampledCorpus(Corpus):
    """A corpus of pairs whose pieces are drawn, each by a seed that hangs on seed, epoch, pair and side alone.

    What is drawn and does not fit a row stays in the likeliest pieces, so that no pair is lost.

    Args:
        plain: the same pairs in their likeliest pieces.
        pairs: their texts.
        objective: what becomes of them.
        tokenizers: of both sides.
        strength: how much is drawn; see `Tokenizer.sample`.
        limits: tokens of a row.
        seed: of what is drawn.
    """

    drawn, held = True, True

    def __init__(
        self,
        plain: Corpus,
        pairs: Pairs,
        objective: Objective,
        tokenizers: Tokenizers,
        strength: float,
        limits: Limits,
        seed: int,
    ) -> None:
        assert pairs.sources is not None  # as pairs have them
        self._plain, self._objective, self._strength, self._limits, self._seed = (
            plain,
            objective,
            strength,
            limits,
            seed,
        )
        self._sides: list[tuple[Tokenizer, list[str]]] = [(tokenizers.source, list(pairs.sources))]
        if objective.writes:
            self._sides.append((tokenizers.target, list(pairs.targets)))
        self.total, self.dropped = plain.total, plain.dropped
        frames = [tokenizer.special.frames for tokenizer, _ in self._sides]
        self.segments = min(limit // (1 + own) for limit, own in zip(limits, frames, strict=False))

    def __len__(self) -> int:
        return len(self._plain)

    def names(self, chosen: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Numbers of pairs."""
        return self._plain.names(chosen)

    def draw(self, epoch: int, chosen: Int[np.ndarray, " n"]) -> Examples:
        """Other pieces in every epoch, as far as they fit."""
        likeliest = self._plain.draw(epoch, chosen)
        sides = [self._drawn(epoch, chosen, side) for side in range(len(self._sides))]
        target = sides[1] if self._objective.writes else likeliest.target
        drawn = self._objective.examples(Tokens(sides[0], target), _no_generator)
        fits = (drawn.lengths <= self._limits).all(axis=1)
        own = np.arange(len(chosen))
        return Examples.joined([drawn, likeliest]).take(np.where(fits, own, own + len(chosen)))

    def _drawn(self, epoch: int, chosen: Int[np.ndarray, " n"], side: int) -> Ragged:
        tokenizer, texts = self._sides[side]
        names = self.names(chosen).tolist()
        ids = (tokenizer.sample(texts[name], self._strength, self._seed_of(epoch, name, side)) for name in names)
        return Ragged.of([np.array(tokenizer.framed(own)) for own in ids])

    def _seed_of(self, epoch: int, name: int, side: int) -> int:
        """32 bits."""
        told = f"{self._seed} {epoch} {name} {side}".encode()
        return int.from_bytes(hashlib.blake2b(told, digest_size=4).digest())


def _no_generator(index: int) -> np.random.Generator:
    raise AssertionError("of pairs nothing else is drawn")
