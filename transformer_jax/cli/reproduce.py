"""The verb reproduce."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import Run, call
from transformer_jax.config import ProcessesConfig
from transformer_jax.runs import open_run


def main(arguments: Sequence[str]) -> int:
    """Reproduces; returns the exit code."""
    return call("reproduce", reproduce, arguments)


def reproduce(
    run: Run,
    output: Path | None = None,
    data_dir: Annotated[str | None, tyro.conf.arg(name="data.dir")] = None,
    held_out_dir: Annotated[str | None, tyro.conf.arg(name="held-out.dir")] = None,
    tasks_dir: Annotated[tuple[str, ...], tyro.conf.arg(name="tasks.dir")] = (),
    prepared: str | None = None,
    until: int | None = None,
    processes: ProcessesConfig = ProcessesConfig(),  # noqa: B008  # frozen
) -> int:
    """Trains a run again from its folder alone, in a new folder: the same bits, or the first difference.

    Exit code 0 says that metrics and the last common checkpoint are the same to the bit; 1 that they are not: then the
    first step and metric that differ are told, and the environments of both.

    Args:
        run: the run folder; it is read only.
        output: the new folder; None is RUN-reproduced beside it.
        data_dir: the folder of the experiment's data, where it has moved.
        held_out_dir: that of its data for validation and test, where it has some of its own.
        tasks_dir: those of the tasks of its mixture, one for each.
        prepared: the folder of its token shards.
        until: the last step; None is as far as the run has come, whether it is over or not.
        processes: how the processes of the new run find each other.
    """
    open_run(run)  # what is no run is told before jax is imported
    from transformer_jax.processes import is_coordinator
    from transformer_jax.training import reproduction
    from transformer_jax.training.moved import Moved

    places = Moved(data=data_dir, held_out=held_out_dir, tasks=tasks_dir, prepared=prepared)
    outcome = reproduction.reproduce(run, output, places=places, until=until, processes_config=processes)
    if is_coordinator():
        print(outcome)
        print(outcome.output)
    return outcome.code
