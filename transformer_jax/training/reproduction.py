"""A run trained again from its folder alone, and compared with what it was, to the bit."""

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from transformer_jax import environment, processes, runs, sharding
from transformer_jax.config import DataConfig, Experiment, MeshConfig, ProcessesConfig
from transformer_jax.data.sources import Split, place_of
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import FAILED_CHECK, InputError
from transformer_jax.files import require_new
from transformer_jax.runs import RunFolder
from transformer_jax.training import data as datasets
from transformer_jax.training import initial, loop
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.fingerprints import Leaves
from transformer_jax.training.manifest import DamageError
from transformer_jax.training.metrics import read, say
from transformer_jax.training.moved import Moved
from transformer_jax.training.prepared import parts_of

_log = logging.getLogger(__name__)


class Difference(NamedTuple):
    """The first place in which two runs are not the same."""

    step: int
    what: str  # a metric, or a leaf of the checkpoint
    run: str
    here: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a reproduction found; its text tells it."""

    output: Path  # the new run folder
    lines: int  # of metrics that are the same, up to the difference where there is one
    leaves: int  # of the checkpoint that are the same
    checkpoint: int | None  # the step of the last checkpoint that both runs have
    difference: Difference | None
    environments: dict[str, dict[str, str]]  # who -> name -> value
    stopped: int = 0  # the exit code of a signal that ended the training; what there is by then is compared

    @property
    def code(self) -> int:
        """The exit code: FAILED_CHECK where the runs differ, even if a signal stopped the comparison early."""
        return self.stopped if self.difference is None else FAILED_CHECK

    def __str__(self) -> str:
        same = f"{self.lines:,} lines of metrics"
        if self.difference is not None:
            step, what, run, here = self.difference
            table = "\n".join(_table(self.environments))
            return f"{same} are the same; then step {step:,}, {what}: {run} in the run, {here} here\n{table}"
        if self.checkpoint is not None:
            same += f", {self.leaves:,} leaves of the checkpoint of step {self.checkpoint:,}"
        return f"the same to the bit{', up to where a signal stopped it' if self.stopped else ''}: {same}"


@dataclasses.dataclass(frozen=True)
class _Original:
    """What there is of the run to compare with."""

    folder: RunFolder
    sessions: list[dict[str, Any]]
    lines: list[dict[str, Any]]  # of metrics
    manifests: dict[int, Leaves]  # of its checkpoints, by step
    until: int  # the step up to which it is compared


def reproduce(
    run: str | Path,
    output: str | Path | None = None,
    *,
    places: Moved = Moved(),  # noqa: B008  # frozen
    until: int | None = None,
    processes_config: ProcessesConfig | None = None,
) -> Outcome:
    """Trains a run again, from its config, seed and data, in a new folder, and compares the two.

    Metrics are compared value by value, and the last checkpoint that both have leaf by leaf.

    Args:
        run: the run folder; it is read only.
        output: the new folder; None is RUN-reproduced beside it.
        places: of data and token shards that have moved.
        until: the last step; None is as far as the run has come, whether it is over or not.
        processes_config: how the processes of the new run find each other.

    Raises:
        InputError: before anything is compiled, when data or tokenizer are not those of the run, by file; when there is
            nothing to compare with; and on an output folder that is not empty.
        DivergenceError: as in training.
    """
    folder, experiment = RunFolder(run), runs.open_run(run)
    new = RunFolder(output or f"{os.path.abspath(run)}-reproduced")
    experiment = dataclasses.replace(places.applied(experiment), processes=processes_config or ProcessesConfig())
    with processes.started(experiment.processes):
        processes.on_coordinator(lambda: require_new(new.path, "--output"))
        original = _read_original(folder, until)
        experiment = _prepare(original, experiment, new)
        stopped = loop.train_among(experiment, new.path, until=original.until)
        return _compare(original, new, stopped)


def _read_original(folder: RunFolder, until: int | None) -> _Original:
    if folder.average.exists():
        raise InputError(f"{folder.path}: holds an average of checkpoints; reproduce the runs it is made of")
    if folder.imported.exists():
        raise InputError(f"{folder.path}: holds an imported checkpoint, which was not trained here")
    sessions = runs.read_sessions(folder)
    if not sessions:
        raise InputError(f"{folder.environment}: missing; without it nothing tells which data the run had")
    lines = read(folder.metrics) if folder.metrics.exists() else []
    manifests = _manifests(folder)
    steps = sorted([*(line["step"] for line in lines), *manifests])
    if not steps:
        raise InputError(f"{folder.path}: has neither metrics nor a checkpoint yet, so nothing can be compared")
    until = steps[-1] if until is None else until
    if not steps[0] <= until <= steps[-1]:
        raise InputError(
            f"--until {until}: the run can be compared from step {steps[0]:,} on, and up to step {steps[-1]:,}"
        )
    return _Original(
        folder,
        sessions,
        [line for line in lines if line["step"] <= until],
        {step: leaves for step, leaves in manifests.items() if step <= until},
        until,
    )


def _manifests(folder: RunFolder) -> dict[int, Leaves]:
    """What each checkpoint holds, by its step."""
    found: dict[int, Leaves] = {}
    if folder.checkpoints.is_dir():
        with Checkpoints(folder.checkpoints) as checkpoints:
            for step in checkpoints.steps():
                try:
                    found[step] = checkpoints.leaves(step)
                except DamageError as error:
                    _log.warning("%s: checkpoint %d is damaged and not compared: %s", folder.checkpoints, step, error)
    return found


def _mesh_here(experiment: Experiment, session: Mapping[str, Any]) -> MeshConfig:
    """The mesh of the run, or the nearest one for the devices that are here."""
    here = jax.devices()
    there = (len(session["devices"]), session["platform"])
    if there != (len(here), here[0].platform):
        say(
            f"devices here: {len(here)} ({here[0].platform}), of the run: {there[0]} ({there[1]}); the comparison "
            "tells whether that changes the bits"
        )
    for mesh in (experiment.mesh, dataclasses.replace(experiment.mesh, data=-1)):
        with contextlib.suppress(InputError):
            sharding.check_mesh(sharding.make_mesh(mesh), experiment.model)
            return mesh
    return MeshConfig()


def _prepare(original: _Original, experiment: Experiment, new: RunFolder) -> Experiment:
    """Checks data and tokenizer against those of the run, and makes the new folder, with the tokenizer in it.

    Returns the experiment with the mesh that it is trained on here.
    """
    recorded = runs.recorded_digests(original.folder)
    digest = Tokenizers.load(original.folder.tokenizer).digest
    if digest != recorded.get("tokenizer"):
        files = " and ".join(str(path) for path in sorted(original.folder.tokenizer.glob("*.model")))
        raise InputError(
            f"{files}: not the tokenizer that the run was trained with: digest {digest}, recorded "
            f"{recorded.get('tokenizer')}; bring it back"
        )
    _check_initial(experiment, recorded)
    splits = datasets.load_splits(experiment)
    _check_data(experiment, recorded, splits)
    here = dataclasses.replace(experiment, mesh=_mesh_here(experiment, original.sessions[-1]))
    processes.on_coordinator(lambda: _start(original, here, splits, new, digest))
    return here


def _check_initial(experiment: Experiment, recorded: Mapping[str, str]) -> None:
    """A run that started from a checkpoint starts from the same weights again."""
    if experiment.init_from is not None:
        digest, was = initial.initial_of(experiment).digest(), recorded.get(datasets.INITIAL)
        if digest != was:
            raise InputError(
                f"{experiment.init_from}: not the weights that the run started from: {digest}, recorded {was}"
            )


def _check_data(experiment: Experiment, recorded: Mapping[str, str], splits: datasets.Splits) -> None:
    kinds: tuple[Split, ...] = ("train", "validation", "test")
    places: dict[str, tuple[DataConfig, Split]] = {
        f"{split} data": (experiment.data_of(split), split) for split in kinds
    }
    places |= {f"task {number} data": (task.data, "train") for number, task in enumerate(experiment.mixture.tasks)}
    digests = splits.digests()
    changed = [
        f"{_told(experiment, *place)}: not the {name} of the run: digest {digest}, recorded {was}"
        for name, place in places.items()
        if (digest := digests.get(name)) != (was := recorded.get(name))
    ]
    if changed:
        raise InputError(f"{'; '.join(changed)}; bring it back, or give the folder that has it, as with --data.dir")


def _told(experiment: Experiment, data: DataConfig, split: Split) -> str:
    """Where the examples of a split come from, for messages."""
    if experiment.prepared is None or split != "train":
        return place_of(data, split)
    parts = parts_of(experiment, Path(experiment.prepared))
    return next(f"--prepared {part.folder}" for part in parts if part.data is data)


def _start(original: _Original, experiment: Experiment, splits: datasets.Splits, new: RunFolder, digest: str) -> None:
    """Makes the new folder, with a tokenizer trained from the data, which has to be that of the run."""
    tokenizers = datasets.make_tokenizers(experiment, splits)
    if tokenizers.digest != digest:
        made_by, here = original.sessions[0]["versions"].get("sentencepiece"), environment.versions()["sentencepiece"]
        raise InputError(
            f"{original.folder.tokenizer}: of the same data sentencepiece {here} makes another tokenizer here than "
            f"{made_by} did for the run: digest {tokenizers.digest}, recorded {digest}; install {made_by}"
        )
    runs.start(new.path, experiment)
    tokenizers.save(new.tokenizer)
    new.metrics.touch()  # a run whose logs are open keeps the tokenizer it has


def _compare(original: _Original, new: RunFolder, stopped: int) -> Outcome:
    """The outcome of a training that is over, on every process; a stopped one is compared as far as it came."""
    manifests = _manifests(new)
    reached = max(manifests, default=0) if stopped else original.until
    lines, found = 0, None
    if processes.is_coordinator():
        theirs = [line for line in original.lines if line["step"] <= reached]
        lines, found = _compare_lines(*_of_one_interval(original.sessions, theirs, read(new.metrics)))
    lines, found = processes.agree((lines, found))
    difference = None if found is None else Difference(*found)
    common = max(original.manifests.keys() & manifests.keys(), default=None)
    leaves = 0
    if common is not None and difference is None:
        leaves, difference = _compare_leaves(common, original.manifests[common], manifests[common])
    environments = _environments(original.sessions, runs.read_sessions(new)[-1])
    return Outcome(new.path, lines, leaves, common, difference, environments, stopped)


def _of_one_interval(
    sessions: Sequence[Mapping[str, Any]], *logs: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], ...]:
    """The lines of both logs that can be compared: means of training only where all sessions took them as often."""
    intervals = {session["placement"].get("logging.every") for session in sessions}
    if len(intervals) == 1:
        return logs
    say(f"the sessions of the run had logging.every of {sorted(intervals)}: its means of training are not compared")
    return tuple([line for line in log if "train/loss" not in line] for log in logs)


def _compare_lines(
    theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]
) -> tuple[int, Difference | None]:
    """How many lines of metrics are the same, and the first value that is not.

    Values are compared as their JSON: floats are written so that another text is another number, and NaN equals NaN.
    """
    nothing: Mapping[str, Any] = {}
    for index, pair in enumerate(itertools.zip_longest(theirs, ours, fillvalue=nothing)):
        steps = [line.get("step", math.inf) for line in pair]
        run, here = ({name: json.dumps(value) for name, value in line.items()} for line in pair)
        if steps[0] != steps[1]:  # a line that only one of the two has
            told = ["a line" if step == min(steps) else "none" for step in steps]
            return index, Difference(int(min(steps)), "metrics", *told)
        for name in {**run, **here}:
            if run.get(name) != here.get(name):
                return index, Difference(int(steps[0]), name, run.get(name, "none"), here.get(name, "none"))
    return len(theirs), None


def _compare_leaves(step: int, theirs: Leaves, ours: Leaves) -> tuple[int, Difference | None]:
    """How many leaves of a checkpoint are the same, and the first that is not."""
    run, here = (
        {
            f"{item}{path}": " ".join(map(str, leaf))
            for item, leaves in manifest.items()
            for path, leaf in leaves.items()
        }
        for manifest in (theirs, ours)
    )
    for count, name in enumerate({**run, **here}):
        if run.get(name) != here.get(name):
            return count, Difference(step, f"checkpoint, {name}", run.get(name, "missing"), here.get(name, "missing"))
    return len(run), None


def _environments(sessions: Sequence[Mapping[str, Any]], here: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What each session of the run was made with, sessions that are alike together, and what the new run was."""
    alike: dict[str, list[int]] = {}
    for number, session in enumerate(sessions, start=1):
        alike.setdefault(json.dumps(_environment(session)), []).append(number)
    names = ["the run"] if len(alike) == 1 else [f"session {', '.join(map(str, found))}" for found in alike.values()]
    return dict(zip(names, map(json.loads, alike), strict=True)) | {"here": _environment(here)}


def _environment(session: Mapping[str, Any]) -> dict[str, str]:
    devices = session["devices"]
    values = {
        **session["versions"],
        "commit": session["commit"],
        "platform": session["platform"],
        "devices": f"{len(devices)}, first {devices[0]}",
        "processor": session.get("processor"),
        "XLA_FLAGS": session.get("xla_flags"),
        **session["placement"],
    }
    elsewhere = ("data.", "processes.")  # what the data is does not depend on its place
    return {name: str(value) for name, value in values.items() if not name.startswith(elsewhere)}


def _table(environments: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The environments side by side, a star before each row in which they differ."""
    names = list(dict.fromkeys(name for values in environments.values() for name in values))
    rows = [["", "", *environments]]
    for name in names:
        values = [each.get(name, "None") for each in environments.values()]
        rows.append(["*" if len(set(values)) > 1 else "", name, *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
