"""The mean of checkpoints' weights as a run folder of its own (6.1: the paper averages the last 5, or 20)."""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import transformer_jax
from transformer_jax import sharding
from transformer_jax.checked import leaves_of
from transformer_jax.config import Experiment
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import require_new, write_atomically
from transformer_jax.models import Parameters
from transformer_jax.runs import RunFolder, open_run
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.metrics import score_of
from transformer_jax.training.single import write_run
from transformer_jax.translation import read_parameters


@dataclasses.dataclass(frozen=True)
class Member:
    """A checkpoint that goes into an average."""

    run: str  # absolute path of the run folder
    step: int


def average(
    runs: Sequence[str | Path], output: str | Path, *, by: Literal["newest", "best"], count: int
) -> list[Member]:
    """Averages checkpoints, with equal weights, into a new run folder; returns which.

    Of each run, `count` checkpoints are taken, and of each checkpoint what the run is evaluated with. The new folder
    holds the first run's experiment and record of its sessions, by whose digests data and tokenizer are still checked,
    and one checkpoint, which can be translated with but not trained on.

    Args:
        runs: run folders of one and the same model and tokenizer.
        output: the new folder; it appears when it is whole.
        by: which checkpoints: the newest, or the best by the metric of the run's experiment.
        count: how many of each run.

    Raises:
        InputError: on no run, on runs that differ in model or tokenizer or have fewer checkpoints, and on an output
            folder that is not empty.
    """
    if not runs or count < 1:
        raise InputError(f"an average of {len(runs)} runs and {count} checkpoints of each: both must be above 0")
    output = Path(output)
    require_new(output, "--output")
    folders = [RunFolder(Path(run).resolve()) for run in runs]
    experiments = [open_run(folder.path) for folder in folders]
    _check_alike(folders, experiments)
    members = [
        Member(str(folder.path), step)
        for folder, experiment in zip(folders, experiments, strict=True)
        for step in _chosen_steps(folder, experiment, by, count)
    ]
    mesh = sharding.data_mesh()
    mean = mean_of(read_parameters(RunFolder(member.run), experiments[0], mesh, member.step)[0] for member in members)
    provenance: dict[str, object] = {
        "version": transformer_jax.__version__,
        "by": by,
        "metric": experiments[0].evaluation.metric if by == "best" else None,
        "checkpoints": [dataclasses.asdict(member) for member in members],
    }

    def rest(folder: RunFolder) -> None:
        write_atomically(folder.average, json.dumps(provenance, indent=2, ensure_ascii=False) + "\n")
        shutil.copytree(folders[0].tokenizer, folder.tokenizer)
        if folders[0].environment.exists():
            shutil.copy(folders[0].environment, folder.environment)

    write_run(output, experiments[0], mean, max(member.step for member in members), rest)
    return members


def _check_alike(folders: Sequence[RunFolder], experiments: Sequence[Experiment]) -> None:
    """Every run has the model and the tokenizer of the first."""
    first, model = folders[0], dict(leaves_of(dataclasses.asdict(experiments[0].model)))
    digest = Tokenizers.load(first.tokenizer).digest
    for folder, experiment in zip(folders[1:], experiments[1:], strict=True):
        other = dict(leaves_of(dataclasses.asdict(experiment.model)))
        differences = [f"model.{name}: {model[name]} and {other[name]}" for name in model if model[name] != other[name]]
        if differences:
            raise InputError(f"{first.path} and {folder.path} are of other models: {'; '.join(differences)}")
        if Tokenizers.load(folder.tokenizer).digest != digest:
            raise InputError(f"{first.tokenizer} and {folder.tokenizer} are not the same tokenizer")


def _chosen_steps(folder: RunFolder, experiment: Experiment, by: str, count: int) -> list[int]:
    """The steps of a run that are averaged, oldest first."""
    if not folder.checkpoints.is_dir():
        raise InputError(f"{folder.checkpoints}: no checkpoints; train first")
    with Checkpoints(folder.checkpoints, score=score_of(experiment.evaluation.metric)) as checkpoints:
        steps, kind = checkpoints.steps(), "checkpoints"
        if by == "best":
            steps, kind = checkpoints.ranked(), "evaluated checkpoints"
    if len(steps) < count:
        raise InputError(
            f"{folder.path}: {len(steps)} {kind}, fewer than --{by} {count}; ask for fewer, or keep more in training "
            f"with --checkpoints.{by}"
        )
    return sorted(steps[-count:])


def mean_of(trees: Iterable[Parameters]) -> Parameters:
    """The mean of trees of arrays, summed in float64 on the host, one tree after the other."""
    total, count = None, 0
    for tree in trees:
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
        total = wide if total is None else jax.tree.map(np.add, total, wide)
        count += 1
    return jax.tree.map(lambda leaf: (leaf / count).astype(np.float32), total)
