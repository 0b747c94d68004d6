"""Writes a run's model as StableHLO with its parameters and tokenizers, for jax and sentencepiece alone to run.

    transformer-jax export RUN --output FOLDER [--length 64 --beam 5 ...]

transformer-jax export RUN --help lists every option, with the values of the run's experiment.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import over_run
from transformer_jax.config import DecodingConfig, Experiment
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder


def main(arguments: Sequence[str]) -> int:
    """Exports; returns the exit code."""
    return over_run("export RUN --output FOLDER", __doc__, _export_of, arguments)


def _export_of(run: Path, experiment: Experiment) -> Callable[..., int]:
    def export(
        output: Path,
        decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = experiment.decoding,
        length: int = experiment.batch.source_length,
        step: int | None = None,
    ) -> int:
        """Writes a run's model as StableHLO with its parameters and tokenizers, for any number of sentences at once.

        Args:
            output: a new folder.
            decoding: how the exported program translates.
            length: source tokens that it reads: shorter sentences are padded, longer ones do not fit.
            step: the checkpoint to export; None is the best, or the newest where none was measured.
        """
        if length < 2:
            raise InputError(f"--length {length}: a sentence has 2 tokens at least, its end included")
        if output.exists():
            raise InputError(f"--output {output}: stands there already; give a new folder")

        from transformer_jax import sharding
        from transformer_jax.export import export
        from transformer_jax.translation import load_tokenizers, read_parameters

        folder = RunFolder(run)
        mesh = sharding.data_mesh()
        params, step = read_parameters(folder, experiment, mesh, step)
        export(experiment.model, params, load_tokenizers(folder), output, decoding, length)
        print(f"{output}: checkpoint of step {step:,}, for sentences of up to {length} tokens")
        return 0

    return export
