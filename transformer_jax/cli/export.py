"""Writes a run's model as StableHLO with its parameters and tokenizers, for jax and sentencepiece alone to run.

    transformer-jax export RUN --output FOLDER [--length 64 --beam 5 ...]

transformer-jax export RUN --help lists every option, with the values of the run's experiment.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import asks_for_help, call, run_first
from transformer_jax.config import DecodingConfig
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder


def main(arguments: Sequence[str]) -> int:
    """Exports; returns the exit code."""
    if asks_for_help(arguments):
        print(__doc__)
        return 0
    run, experiment, flags = run_first(arguments, "export RUN --output FOLDER")

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
        import jax

        from transformer_jax import sharding
        from transformer_jax.export import export
        from transformer_jax.translation import load_tokenizers, read_parameters

        folder = RunFolder(run)
        mesh = sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
        params, step = read_parameters(folder, experiment, mesh, step)
        export(experiment.model, params, load_tokenizers(folder), output, decoding, length)
        print(f"{output}: checkpoint of step {step:,}, for sentences of up to {length} tokens")
        return 0

    return call("export RUN", export, flags)
