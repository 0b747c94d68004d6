"""Where what a run has read lies now."""

import dataclasses

from transformer_jax.config import DataConfig, Experiment
from transformer_jax.data.sources import moved, naming
from transformer_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Moved:
    """Where what a run reads lies now; None is where it was."""

    data: str | None = None  # the folder of the experiment's data
    held_out: str | None = None  # that of its data for validation and test
    tasks: tuple[str, ...] = ()  # those of the tasks of its mixture, all of them or none
    prepared: str | None = None  # the folder of its token shards

    def applied(self, experiment: Experiment) -> Experiment:
        """The experiment with these places.

        Raises:
            InputError: on data that is in no folder, or is not there at all.
        """
        tasks = experiment.mixture.tasks
        if self.tasks and len(self.tasks) != len(tasks):
            raise InputError(f"--tasks.dir: {len(self.tasks)} folders for {len(tasks)} tasks; give one for each")
        if self.held_out is not None and experiment.held_out is None:
            raise InputError(f"--held-out.dir {self.held_out}: the run has no such data; see --data.dir")
        if self.prepared is not None and experiment.prepared is None:
            raise InputError(f"--prepared {self.prepared}: the run was not trained from token shards; leave it out")
        placed = tuple(
            dataclasses.replace(task, data=_in_folder(task.data, folder, "tasks"))
            for task, folder in zip(tasks, self.tasks or [None] * len(tasks), strict=True)
        )
        held_out = experiment.held_out
        return dataclasses.replace(
            experiment,
            data=_in_folder(experiment.data, self.data, "data"),
            held_out=None if held_out is None else _in_folder(held_out, self.held_out, "held-out"),
            mixture=dataclasses.replace(experiment.mixture, tasks=placed),
            prepared=self.prepared or experiment.prepared,
        )


def _in_folder(data: DataConfig, folder: str | None, flag: str) -> DataConfig:
    with naming(flag):
        return data if folder is None else moved(data, folder)
