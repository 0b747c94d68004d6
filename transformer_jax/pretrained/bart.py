"""BART, and mBART and mBART-50, which are pre-norm: learned positions behind two unused ones, embeddings normed."""

from typing import Literal

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.family import Family
from transformer_jax.pretrained.settings import Settings

_UNUSED = 2  # rows of the positions


def _family(model_type: str, architecture: str, norm: Literal["post", "pre"]) -> Family:
    def config(settings: Settings, untied: bool) -> ModelConfig:
        return fairseq.config_of(
            settings,
            untied,
            pad=1,
            start=2,  # the end; what mBART starts from hangs on the language, where config.json does not say
            norm=norm,
            positions="learned",
            position_offset=_UNUSED,
            embedding_norm=True,
            output_bias=True,
        )

    return fairseq.family(model_type, architecture, config)


BART = _family("bart", "BartForConditionalGeneration", "post")
MBART = _family("mbart", "MBartForConditionalGeneration", "pre")
