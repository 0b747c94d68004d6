"""Marian, as of OPUS-MT: post-norm, sines before cosines, a bias on the logits."""

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.settings import Settings
from transformer_jax.pretrained.words import Sides, Words


def _config(settings: Settings, untied: bool) -> ModelConfig:
    settings.only("share_encoder_decoder_embeddings", True)
    pad = settings.number("pad_token_id", 58100)
    return fairseq.config_of(settings, untied, pad=pad, start=58100, positions="halves", output_bias=True)


def _frames(words: Words, config: ModelConfig) -> Sides:
    """A target language, where there are several, stands before the source: `>>fra<<`, also written in the text."""
    target, code = words.special(config, 0), words.languages[1]
    if code is None:
        return target, target
    return words.special(config, 0, before=(words.language(1, ">>{}<<"),)), target


MARIAN = fairseq.family(
    "marian",
    "MarianMTModel",
    _config,
    _frames,
    ignored=(fairseq.SINUSOIDS,),
    decoder_vocab_size=lambda config: config.vocab_size,
    share_encoder_decoder_embeddings=lambda config: True,
)
