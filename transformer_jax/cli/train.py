"""Trains the experiment of a file in a run folder, or goes on where that folder stands.

    transformer-jax train FILE --workdir DIR [--FIELD VALUE ...]

Every field of the experiment is a flag, such as --model.dropout 0.2;
transformer-jax train FILE --help lists them with the values of the file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import asks_for_help, call, file_first
from transformer_jax.config import Experiment


def main(arguments: Sequence[str]) -> int:
    """Trains; returns the exit code."""
    if asks_for_help(arguments):
        print(__doc__)
        return 0
    default, flags = file_first(arguments, "train FILE --workdir DIR")

    def train(workdir: Path, experiment: Annotated[Experiment, tyro.conf.arg(name="")] = default) -> int:
        """Trains an experiment in a run folder, or goes on where that folder stands.

        Args:
            workdir: the run folder: everything that the run writes goes there.
            experiment: the experiment of the file, each of its fields a flag.
        """
        from transformer_jax.training import loop

        return loop.train(experiment, workdir)

    return call("train FILE", train, flags)
