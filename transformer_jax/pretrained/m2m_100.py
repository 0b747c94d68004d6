"""M2M-100 and NLLB-200: pre-norm, sinusoids of the authors' code that count from behind the padding id."""

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.files import Files
from transformer_jax.pretrained.settings import Settings
from transformer_jax.pretrained.words import Sides, Words, fairseq_table

_END = 2


def _config(settings: Settings, untied: bool) -> ModelConfig:
    return fairseq.config_of(
        settings,
        untied,
        activation="relu",
        pad=1,
        start=_END,
        scaled=True,
        attention_dropout=0.1,
        norm="pre",
        positions="authors",
        position_offset=settings.number("pad_token_id", 1) + 1,
    )


def _frames(words: Words, config: ModelConfig) -> Sides:
    """The language stands before every sentence."""
    words.refuse_legacy()
    source, target = (words.special(config, _END, before=(words.language(side, "__{}__"),)) for side in (0, 1))
    return source, target


def _table(pieces: list[str], files: Files) -> list[str]:
    """Ids of vocab.json, and languages behind them; of NLLB, which has none, those of fairseq."""
    table = files.table()
    return fairseq_table(pieces, files) if table is None else [*table, *files.additional()]


M2M_100 = fairseq.family("m2m_100", "M2M100ForConditionalGeneration", _config, _frames, table=_table)
