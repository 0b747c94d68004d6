"""Subword regularisation: pairs cut into other pieces in every epoch (Kudo, 2018; Provilkov et al., 2020)."""

import numpy as np
from jaxtyping import Int

from transformer_jax.data.corpus import PairCorpus, no_generator, segments_at_most
from transformer_jax.data.examples import Examples, Tokens, TokenStore
from transformer_jax.data.keys import PIECES, key_of, keyed
from transformer_jax.data.objectives import Limits, Objective
from transformer_jax.data.subwords import Segmenter
from transformer_jax.data.tokenizer import Tokenizers


class SampledCorpus(PairCorpus):
    """A corpus of pairs whose pieces are drawn, by seed, epoch, pair and side alone.

    What is drawn and does not fit a row stays in the likeliest pieces, so that no pair is lost.

    Args:
        tokens: of all pairs, in their likeliest pieces.
        objective: what becomes of them.
        tokenizers: of both sides.
        limits: tokens of a row.
        strength: how much is drawn; see `Segmenter`.
        seed: of what is drawn.

    Raises:
        InputError: where nothing is left, and on tokenizers that cannot draw.
    """

    drawn = True

    def __init__(
        self,
        tokens: TokenStore,
        objective: Objective,
        tokenizers: Tokenizers,
        limits: Limits,
        strength: float,
        seed: int,
    ) -> None:
        super().__init__(tokens, objective, tokenizers, limits)
        self.segments = segments_at_most(objective, tokenizers, limits)
        self._limits, self._seed = limits, seed
        self._source = Segmenter(tokenizers.source, strength)
        self._target = self._source if tokenizers.joint else Segmenter(tokenizers.target, strength)

    def draw(self, epoch: int, chosen: Int[np.ndarray, " n"]) -> Examples:
        """Other pieces in every epoch, as far as they fit."""
        names = self.names(chosen)
        tokens = self._tokens.take(names)
        both = [self._objective.examples(own, no_generator) for own in (self._cut(tokens, epoch, names), tokens)]
        fits, own = (both[0].lengths <= self._limits).all(axis=1), np.arange(len(chosen))
        return Examples.joined(both).take(np.where(fits, own, own + len(chosen)))

    def _cut(self, tokens: Tokens, epoch: int, names: Int[np.ndarray, " n"]) -> Tokens:
        assert tokens.source is not None  # as pairs have them
        source, target = (keyed(key_of(self._seed, epoch, side, PIECES), names) for side in range(2))
        written = self._objective.writes  # else a class, which has no pieces
        return Tokens(
            self._source.draw(tokens.source, source),
            self._target.draw(tokens.target, target) if written else tokens.target,
        )
