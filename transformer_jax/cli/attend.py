"""Translates a sentence and draws every head of a layer: encoder self-attention, and cross-attention.

    transformer-jax attend RUN SENTENCE [--layer 2 ...]

transformer-jax attend RUN --help lists every option, with the values of the run's experiment.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import over_run
from transformer_jax.config import DecodingConfig, Experiment, ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder


def main(arguments: Sequence[str]) -> int:
    """Draws attention; returns the exit code."""
    return over_run("attend RUN SENTENCE", __doc__, _attend_of, arguments)


def _attend_of(run: Path, experiment: Experiment) -> Callable[..., int]:
    def attend(
        sentence: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SENTENCE")],
        decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = experiment.decoding,
        layer: int = -1,
        output: Path | None = None,
        step: int | None = None,
    ) -> int:
        """Translates a sentence and draws every head of a layer: encoder self-attention, and cross-attention.

        Args:
            sentence: the sentence.
            decoding: how to translate.
            layer: counted from 1, or from -1 for the last, in encoder and decoder alike.
            output: the picture, a .png file; None is attention.png in the run folder.
            step: the checkpoint to translate with; None is the best, or the newest where none was measured.
        """
        path = output or RunFolder(run).attention
        _check(layer, experiment.model, path)
        from transformer_jax import plots
        from transformer_jax.translation import Translator

        attended = Translator.from_run(run, step=step, decoding=decoding).attend(sentence)
        plots.attention(attended, path, layer)
        print(attended.translation)
        print(path)
        return 0

    return attend


def _check(layer: int, model: ModelConfig, path: Path) -> None:
    """What is known to be wrong before anything is compiled."""
    depth = min(model.encoder_layers, model.decoder_layers)
    if not depth:
        raise InputError("the model has an encoder or a decoder alone: what is drawn are the heads of both")
    if not 1 <= abs(layer) <= depth:
        raise InputError(f"--layer {layer}: encoder and decoder have the layers 1 to {depth}, or -{depth} to -1")
    if path.suffix != ".png":
        raise InputError(f"--output {path}: the picture is a .png file")
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: no such folder: {path.parent}")
