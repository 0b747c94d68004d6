"""Trains the experiment of a file in a run folder, or goes on where that folder stands.

    transformer-jax train FILE --workdir DIR [--FIELD VALUE ...]

Every field of the experiment is a flag, such as --model.dropout 0.2;
transformer-jax train FILE --help lists them with the values of the file.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import over_file
from transformer_jax.config import Experiment, debug_variant


def main(arguments: Sequence[str]) -> int:
    """Trains; returns the exit code."""
    return over_file("train FILE --workdir DIR", __doc__, _train_of, arguments)


def _train_of(default: Experiment) -> Callable[..., int]:
    def train(
        workdir: Path,
        experiment: Annotated[Experiment, tyro.conf.arg(name="")] = default,
        profile: bool = False,
        debug: bool = False,
    ) -> int:
        """Trains an experiment in a run folder, or goes on where that folder stands.

        Args:
            workdir: the run folder: everything that the run writes goes there.
            experiment: the experiment of the file, each of its fields a flag.
            debug: trains the same in the small, to see that all of it works: on generated text, for three steps.
            profile: also writes a trace of a few steps to the run folder, for TensorBoard, XProf or Perfetto.
        """
        from transformer_jax.training import loop

        return loop.train(debug_variant(experiment) if debug else experiment, workdir, profile=profile)

    return train
