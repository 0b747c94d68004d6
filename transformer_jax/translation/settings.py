"""The strategy and the constraints that a config asks for."""

from typing import Any

import jax.numpy as jnp

from transformer_jax.config import DecodingConfig
from transformer_jax.decoding import (
    BeamSearch,
    Constraint,
    MinLength,
    NoRepeatedNgram,
    RepetitionPenalty,
    Sampling,
    SpeculativeGreedy,
    StepModel,
    Strategy,
    Suppressed,
)
from transformer_jax.sizes import Size


def strategy_of(config: DecodingConfig, draft: StepModel | None = None) -> Strategy[Any]:
    """The strategy that a config asks for; with a draft model, the speculative form of a beam of one."""
    if draft is not None:
        return SpeculativeGreedy(draft, config.guesses, config.length_penalty, config.length_offset)
    if config.sampling:
        return Sampling(config.nbest, config.temperature, config.top_k, config.top_p, config.min_p)
    return BeamSearch(
        width=config.beam,
        length_penalty=config.length_penalty,
        length_offset=config.length_offset,
        n_best=config.nbest,
        narrow_ends=config.narrow_ends,
        stopping=config.stopping,
        patience=config.patience,
        groups=config.groups,
        diversity=config.diversity,
    )


def settings_of(config: DecodingConfig, count: Size) -> list[Constraint]:
    """The constraints that a config sets for all sentences, of which there are so many."""
    constraints: list[Constraint] = []
    if config.repetition_penalty != 1:
        constraints.append(RepetitionPenalty(config.repetition_penalty))
    if config.no_repeated_ngram:
        constraints.append(NoRepeatedNgram(config.no_repeated_ngram))
    if config.suppressed:
        constraints.append(Suppressed(config.suppressed))
    if config.min_length:
        constraints.append(MinLength(jnp.full(count, config.min_length)))
    return constraints
