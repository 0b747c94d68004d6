"""Marian, as of OPUS-MT: post-norm, sines before cosines, a bias on the logits."""

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.family import Family
from transformer_jax.pretrained.settings import Settings


def _config(settings: Settings, untied: bool) -> ModelConfig:
    settings.only("share_encoder_decoder_embeddings", True)
    pad = settings.number("pad_token_id", 58100)
    return fairseq.config_of(settings, untied, pad=pad, start=58100, positions="halves", output_bias=True)


MARIAN = Family(
    architecture="MarianMTModel",
    config=_config,
    settings=lambda config: (
        fairseq.settings_of("marian", config)
        | {"decoder_vocab_size": config.vocab_size, "share_encoder_decoder_embeddings": True}
    ),
    names=fairseq.names_of,
    aliases=fairseq.ALIASES,
    prefix="model.",
    unprefixed=fairseq.UNPREFIXED,
    ignored=(*fairseq.IGNORED, fairseq.SINUSOIDS),
)
