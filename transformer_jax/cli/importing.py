"""The verb import."""

from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from transformer_jax.cli.arguments import Run, call


def main(arguments: Sequence[str]) -> int:
    """Imports; returns the exit code."""
    return call("import", import_, arguments)


def import_(
    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    run: Run,
    source_language: str | None = None,
    target_language: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> int:
    """Makes a run folder of a public checkpoint, to translate with and to start from.

    Args:
        folder: of the checkpoint: config.json, safetensors, a tokenizer; or its name on the Hugging Face Hub.
        run: the new run folder.
        source_language: of a model of many languages, as it writes them.
        target_language: likewise.
        dtype: of activations; parameters are kept as float32.
    """
    from transformer_jax.training.importing import import_checkpoint

    experiment = import_checkpoint(
        folder, run, source_language=source_language, target_language=target_language, dtype=dtype
    )
    model = experiment.model
    print(f"{run}: {model.encoder_layers} + {model.decoder_layers} layers, {model.vocab_size:,} pieces, of {folder}")
    return 0
