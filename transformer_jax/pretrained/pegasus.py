"""Pegasus: pre-norm, sines before cosines, a bias on the logits."""

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained import fairseq
from transformer_jax.pretrained.files import Files
from transformer_jax.pretrained.settings import Settings
from transformer_jax.pretrained.words import ended_by

_UNUSED = 103  # ids before those of the model's pieces, less the two that are the same


def _config(settings: Settings, untied: bool) -> ModelConfig:
    return fairseq.config_of(settings, untied, pad=0, start=0, norm="pre", positions="halves", output_bias=True)


def _table(pieces: list[str], files: Files) -> list[str]:
    """Padding, the end, two masks and ids of no use, then the model's pieces; or vocab.json, where there is one."""
    unused = [f"<unk_{number}>" for number in range(2, _UNUSED)]
    return files.table() or ["<pad>", "</s>", "<mask_1>", "<mask_2>", *unused, *pieces[2:]]


PEGASUS = fairseq.family(
    "pegasus",
    "PegasusForConditionalGeneration",
    _config,
    ended_by(1),
    table=_table,
    ignored=(fairseq.SINUSOIDS,),
)
