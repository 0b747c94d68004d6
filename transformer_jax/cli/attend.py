"""The verb attend."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import DecodingFlags, Run, call
from transformer_jax.config import ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder, open_run


def main(arguments: Sequence[str]) -> int:
    """Draws attention; returns the exit code."""
    return call("attend", attend, arguments)


def attend(
    run: Run,
    sentence: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SENTENCE")],
    decoding: Annotated[DecodingFlags, tyro.conf.arg(name="")],
    layer: int = -1,
    output: Path | None = None,
    step: int | None = None,
) -> int:
    """Translates a sentence and draws every head of a layer: encoder self-attention, and cross-attention.

    Args:
        run: the run folder.
        sentence: the sentence.
        decoding: how to translate.
        layer: counted from 1, or from -1 for the last, in encoder and decoder alike.
        output: the picture, a .png file; None is attention.png in the run folder.
        step: the checkpoint to translate with; None is the best, or the newest where none was measured.
    """
    experiment, path = open_run(run), output or RunFolder(run).attention
    config = decoding.applied_to(experiment)
    _check(layer, experiment.model, path)
    from transformer_jax import plots
    from transformer_jax.translation import Translator

    translator = Translator.from_run(run, step=step, decoding=config)
    attended = translator.attend(sentence)
    plots.attention(attended, path, layer)
    print(attended.translation)
    print(path)
    return 0


def _check(layer: int, model: ModelConfig, path: Path) -> None:
    """What is known to be wrong before anything is compiled."""
    depth = min(model.encoder_layers, model.decoder_layers)
    if not 1 <= abs(layer) <= depth:
        raise InputError(f"--layer {layer}: encoder and decoder have the layers 1 to {depth}, or -{depth} to -1")
    if path.suffix != ".png":
        raise InputError(f"--output {path}: the picture is a .png file")
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: no such folder: {path.parent}")
