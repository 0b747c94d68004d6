"""What a translator needs of a run folder."""

from collections.abc import Sequence
from pathlib import Path

from jax.sharding import Mesh

from transformer_jax.config import Experiment
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.initialisation import abstract_parameters
from transformer_jax.models import Parameters
from transformer_jax.runs import RunFolder, check_digests, open_run
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.metrics import score_of
from transformer_jax.training.optimizer import keeps_average


def load_tokenizers(folder: RunFolder) -> Tokenizers:
    """The tokenizers of a run.

    Raises:
        InputError: when they are missing, damaged, or not those that the run was trained with.
    """
    tokenizers = Tokenizers.load(folder.tokenizer)
    check_digests(folder, {"tokenizer": tokenizers.digest})
    return tokenizers


def load_members(
    paths: Sequence[str | Path], mesh: Mesh, steps: Sequence[int | None]
) -> tuple[Tokenizers, list[tuple[Experiment, Parameters]]]:
    """The tokenizers of the first run, and what `load_member` gives of every run at each of these steps.

    Raises:
        InputError: when no run or no step is named, and as `load_member`.
    """
    if not paths or not steps:
        raise InputError("no run or no step is named: give at least one")
    open_run(paths[0])  # which says so where it is none
    tokenizers = load_tokenizers(RunFolder(paths[0]))
    return tokenizers, [load_member(path, tokenizers, mesh, step) for path in paths for step in steps]


def load_member(
    path: str | Path, tokenizers: Tokenizers, mesh: Mesh, step: int | None = None
) -> tuple[Experiment, Parameters]:
    """The experiment and the parameters of a run, which translates with these tokenizers beside others.

    Raises:
        InputError: when it has other tokenizers, and as `read_parameters`.
    """
    folder, experiment = RunFolder(path), open_run(path)
    if load_tokenizers(folder).digest != tokenizers.digest:
        raise InputError(f"{folder.path}: another tokenizer than the first run: models that work together have one")
    return experiment, read_parameters(folder, experiment, mesh, step)[0]


def read_parameters(
    folder: RunFolder, experiment: Experiment, mesh: Mesh, step: int | None = None
) -> tuple[Parameters, int]:
    """The parameters that a run is evaluated with, and their step; see `Translator.from_run` for which.

    Raises:
        InputError: when there is no such checkpoint, or no intact one.
    """
    if not folder.checkpoints.is_dir():
        raise InputError(f"{folder.checkpoints}: no checkpoints; train first")
    averaged = keeps_average(experiment) and not folder.average.exists()
    item = "average" if averaged else "parameters"
    with Checkpoints(folder.checkpoints, score=score_of(experiment.evaluation.metric)) as checkpoints:
        steps = checkpoints.steps()
        if step is not None and step not in steps:
            raise InputError(f"{folder.checkpoints}: no checkpoint of step {step}; there are {steps}")
        wanted = {item: abstract_parameters(experiment.model, mesh)}
        restored = checkpoints.restore(wanted, None if step is None else [step], best_first=True)
    if restored is None:
        raise InputError(f"{folder.checkpoints}: no checkpoint yet; train first")
    return restored.items[item], restored.step
