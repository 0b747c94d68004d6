"""Marian, as of OPUS-MT: post-norm, sines before cosines, a bias on the logits."""

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.settings import Settings


def _config(settings: Settings, untied: bool) -> ModelConfig:
    settings.only("share_encoder_decoder_embeddings", True)
    pad = settings.number("pad_token_id", 58100)
    return fairseq.config_of(settings, untied, pad=pad, start=58100, positions="halves", output_bias=True)


MARIAN = fairseq.family(
    "marian",
    "MarianMTModel",
    _config,
    ignored=(fairseq.SINUSOIDS,),
    decoder_vocab_size=lambda config: config.vocab_size,
    share_encoder_decoder_embeddings=lambda config: True,
)
