"""Decoding over a step function. Knows no model: see `StepModel` for what it is given."""

from transformer_jax.decoding.beam import BeamSearch, Greedy
from transformer_jax.decoding.constraints import (
    Constraint,
    MinLength,
    NoRepeatedNgram,
    Outputs,
    Prefix,
    RepetitionPenalty,
    Required,
    Suppressed,
    Vocabulary,
    phrase_array,
)
from transformer_jax.decoding.ensemble import Mean, check_weights, ensemble
from transformer_jax.decoding.forbidden import Edge, Forbidden, chain
from transformer_jax.decoding.hypotheses import Hypotheses, length_penalty
from transformer_jax.decoding.model import StepModel
from transformer_jax.decoding.sampling import Sampling, keys_of_lines
from transformer_jax.decoding.speculative import SpeculativeGreedy
from transformer_jax.decoding.strategy import Sentences, Strategy

__all__ = [
    "BeamSearch",
    "Constraint",
    "Edge",
    "Forbidden",
    "Greedy",
    "Hypotheses",
    "Mean",
    "MinLength",
    "NoRepeatedNgram",
    "Outputs",
    "Prefix",
    "RepetitionPenalty",
    "Required",
    "Sampling",
    "Sentences",
    "SpeculativeGreedy",
    "StepModel",
    "Strategy",
    "Suppressed",
    "Vocabulary",
    "chain",
    "check_weights",
    "ensemble",
    "keys_of_lines",
    "length_penalty",
    "phrase_array",
]
