"""M2M-100 and NLLB-200: pre-norm, sinusoids of the authors' code that count from behind the padding id."""

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.settings import Settings


def _config(settings: Settings, untied: bool) -> ModelConfig:
    return fairseq.config_of(
        settings,
        untied,
        activation="relu",
        pad=1,
        start=2,
        scaled=True,
        attention_dropout=0.1,
        norm="pre",
        positions="authors",
        position_offset=settings.number("pad_token_id", 1) + 1,
    )


M2M_100 = fairseq.family("m2m_100", "M2M100ForConditionalGeneration", _config)
