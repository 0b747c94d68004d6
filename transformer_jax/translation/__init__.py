"""Translation: strings in, strings out."""

from transformer_jax.translation.forcing import AttendedSentence, PairScore
from transformer_jax.translation.generator import Generator
from transformer_jax.translation.loading import load_member, load_tokenizers, read_parameters
from transformer_jax.translation.results import Hypothesis, Line, Part, Translation
from transformer_jax.translation.settings import settings_of, strategy_of
from transformer_jax.translation.translator import Translator

__all__ = [
    "AttendedSentence",
    "Generator",
    "Hypothesis",
    "Line",
    "PairScore",
    "Part",
    "Translation",
    "Translator",
    "load_member",
    "load_tokenizers",
    "read_parameters",
    "settings_of",
    "strategy_of",
]
