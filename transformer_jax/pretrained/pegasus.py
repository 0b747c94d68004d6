"""Pegasus: pre-norm, sines before cosines, a bias on the logits."""

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.settings import Settings


def _config(settings: Settings, untied: bool) -> ModelConfig:
    return fairseq.config_of(settings, untied, pad=0, start=0, norm="pre", positions="halves", output_bias=True)


PEGASUS = fairseq.family("pegasus", "PegasusForConditionalGeneration", _config, ignored=(fairseq.SINUSOIDS,))
