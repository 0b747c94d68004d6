"""BART, and mBART and mBART-50, which are pre-norm: learned positions behind two unused ones, embeddings normed."""

from typing import Literal

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.family import Family
from transformer_jax.pretrained.settings import Settings
from transformer_jax.pretrained.words import Frames, Sides, Table, Words, fairseq_table, same_table

_UNUSED = 2  # rows of the positions
_END = 2


def _family(
    model_type: str, architecture: str, norm: Literal["post", "pre"], frames: Frames, table: Table = same_table
) -> Family:
    def config(settings: Settings, untied: bool) -> ModelConfig:
        return fairseq.config_of(
            settings,
            untied,
            pad=1,
            start=_END,  # what mBART starts from depends on the language, where config.json does not say
            norm=norm,
            positions="learned",
            position_offset=_UNUSED,
            embedding_norm=True,
            output_bias=True,
        )

    return fairseq.family(model_type, architecture, config, frames, table=table)


def _begun(words: Words, config: ModelConfig) -> Sides:
    """A beginning stands before every sentence."""
    special = words.special(config, _END, before=(words.settings.number("bos_token_id", 0),))
    return special, special


def _of_languages(words: Words, config: ModelConfig) -> Sides:
    """The language stands before every sentence in mBART-50; in mBART behind its end, and a decoder starts from it."""
    source, target = (words.language(side) for side in (0, 1))
    if "MBart50" in words.tokenizer_class() or "af_ZA" in words:  # a language that only the later one has
        return words.special(config, _END, before=(source,)), words.special(config, _END, before=(target,))
    return words.special(config, _END, start=target, behind=(source,)), words.special(config, _END, start=target)


BART = _family("bart", "BartForConditionalGeneration", "post", _begun)
MBART = _family("mbart", "MBartForConditionalGeneration", "pre", _of_languages, fairseq_table)
