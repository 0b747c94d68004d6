"""Writes a run's model for others to run.

    transformer-jax export RUN FOLDER [--length 64 --beam 5 ...]
    transformer-jax export RUN FOLDER --format transformers|marian

As StableHLO, with parameters and tokenizers, for jax and sentencepiece alone to run; or as a checkpoint that
transformers and CTranslate2 open, of the family that it came from, or as Marian (post-norm) or Pegasus (pre-norm).

transformer-jax export RUN --help lists every option, with the values of the run's experiment.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from transformer_jax.cli.arguments import over_run
from transformer_jax.config import DecodingConfig, Experiment
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder


def main(arguments: Sequence[str]) -> int:
    """Exports; returns the exit code."""
    return over_run("export RUN FOLDER", __doc__, _export_of, arguments)


def _export_of(run: Path, experiment: Experiment) -> Callable[..., int]:
    def export(
        folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
        decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = experiment.decoding,
        length: int = experiment.batch.source_length,
        step: int | None = None,
        format: Literal["stablehlo", "transformers", "marian"] = "stablehlo",
    ) -> int:
        """Writes a run's model with its parameters and tokenizers for others to run.

        Args:
            folder: a new folder.
            decoding: how the exported program translates.
            length: source tokens that it reads: shorter sentences are padded, longer ones do not fit.
            step: the checkpoint to export; None is the best, or the newest where none was measured.
            format: stablehlo: programs for any number of sentences at once; transformers: a checkpoint of its family;
                marian: that, if its family is Marian.
        """
        if length < 2:
            raise InputError(f"--length {length}: a sentence has 2 tokens at least, its end included")
        if folder.exists():
            raise InputError(f"{folder}: stands there already; give a new folder")

        from transformer_jax import sharding
        from transformer_jax.export import export
        from transformer_jax.pretrained import family_of, save_pretrained
        from transformer_jax.translation import load_tokenizers, read_parameters

        mesh = sharding.data_mesh()
        tokenizers = load_tokenizers(RunFolder(run))
        if format == "marian" and (family := family_of(experiment.model, tokenizers)) != "marian":
            raise InputError(f"--format marian: {run} goes out as {family}; --format transformers writes that")
        params, step = read_parameters(RunFolder(run), experiment, mesh, step)
        if format == "stablehlo":
            export(experiment.model, params, tokenizers, folder, decoding, length)
            told = f"for sentences of up to {length} tokens"
        else:
            save_pretrained(folder, experiment.model, params, tokenizers, decoding)
            told = f"as {family_of(experiment.model, tokenizers)}"
        print(f"{folder}: checkpoint of step {step:,}, {told}")
        return 0

    return export
