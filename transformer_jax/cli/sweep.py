"""Trains an experiment with all combinations of several values of its fields, a run folder each.

    transformer-jax sweep FILE --workdir DIR --FIELD VALUE VALUE ... [--FIELD VALUE VALUE ...]
    transformer-jax sweep DIR [--point NUMBER]

Every field of the experiment is a flag, as of train; all that take one value may be given several:
--schedule.peak 1e-4 3e-4 --seed 0 1 2, and --model.gated --model.no-gated of a switch. Fields that take several
values anyway, such as --data.train or --training.frozen, keep their meaning.
transformer-jax sweep FILE --help lists all flags with the values of the file.
The second form shows what became of the points of the sweep in a folder, or trains one of them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import call, has_first
from transformer_jax.cli.fields import Choices, several, values_of
from transformer_jax.config import Experiment
from transformer_jax.errors import InputError
from transformer_jax.runs import load_experiment

_USAGE = "sweep FILE --workdir DIR --FIELD VALUE VALUE ..."


def main(arguments: Sequence[str]) -> int:
    """Trains, or shows; returns the exit code."""
    if not has_first("the experiment file, or the folder of a sweep,", _USAGE, __doc__, arguments):
        return 0
    first, *others = arguments
    if Path(first).is_dir():
        from transformer_jax.sweeping.folder import open_sweep

        open_sweep(first)  # what is no sweep is told before jax is imported
        return call("sweep", _sweep_in, arguments)
    default = load_experiment(first)
    choices, left = several(default, _with_options_joined(others))
    firsts = [argument for given in choices.values() for argument in given[0]]
    return call("sweep FILE", _sweep_of(default, choices), [*left, *firsts])


def _with_options_joined(arguments: Sequence[str]) -> list[str]:
    """The options of sbatch begin with dashes: --slurm=OPTIONS is not taken for two flags."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--slurm":
            joined[-1] = f"--slurm={argument}"
        else:
            joined.append(argument)
    return joined


def _sweep_of(default: Experiment, choices: Choices) -> Callable[..., int]:
    def sweep(
        workdir: Path,
        experiment: Annotated[Experiment, tyro.conf.arg(name="")] = default,
        sample: int | None = None,
        sample_seed: int = 0,
        slurm: str | None = None,
    ) -> int:
        """Trains all combinations of the values of fields that are given several, or goes on where their folder stands.

        Each field that takes one value may be given several, as in --schedule.peak 1e-4 3e-4, or --model.gated
        --model.no-gated of a switch; fields that take several anyway keep their meaning. Points that are over are not
        trained again, points that were stopped go on, points that failed are tried again. Another sweep in the same
        folder is refused, unless it only adds points.

        Args:
            workdir: the folder of the sweep: a run folder for each point, table.tsv, sweep.png, sweep.json.
            experiment: the experiment of the file, each of its fields a flag.
            sample: trains so many points of the grid, drawn without repetition; None is all.
            sample_seed: draws others; of the same seed more points begin with the same.
            slurm: submits a SLURM array job with these options of sbatch, a task for each point that is not over.
        """
        if not choices:
            raise InputError(
                "no field has several values, such as --seed 0 1 2; one run is what transformer-jax train makes"
            )
        from transformer_jax.sweeping import grid

        made = grid.make(experiment, values_of(default, choices), sample, sample_seed)
        if slurm is not None:
            from transformer_jax.sweeping.slurm import submit

            return submit(made, workdir, slurm)
        from transformer_jax.sweeping.running import train_all

        return train_all(made, workdir)

    return sweep


def _sweep_in(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")], point: int | None = None
) -> int:
    """Shows what became of the points of a sweep, or trains one of them.

    Args:
        folder: the folder of the sweep.
        point: trains this one, by its number in the table, as train does, and returns its exit code.
    """
    from transformer_jax.sweeping import running

    if point is not None:
        return running.train_point(folder, point)
    running.show(folder)
    return 0
