"""M2M-100 and NLLB-200: pre-norm, sinusoids of the authors' code that count from behind the padding id."""

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.family import Family
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


M2M_100 = Family(
    architecture="M2M100ForConditionalGeneration",
    config=_config,
    settings=lambda config: fairseq.settings_of("m2m_100", config),
    names=fairseq.names_of,
    aliases=fairseq.ALIASES,
    prefix="model.",
    unprefixed=fairseq.UNPREFIXED,
    ignored=fairseq.IGNORED,
)
