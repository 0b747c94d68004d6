"""What a run folder holds, and the record of its sessions."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax import environment
from transformer_jax.checked import settings_of
from transformer_jax.config import Experiment, from_json, identity_difference, to_json
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.runs.lock import make_folder


class RunFolder:
    """The paths of everything that one run writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"  # the experiment
        self.environment = self.path / "environment.json"  # where each session of the run happened
        self.tokenizer = self.path / "tokenizer"
        self.cache = self.path / "cache"  # preprocessed data
        self.filters = self.path / "filters.json"  # which training pairs were left out, where there are filters
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"  # values that are the same whenever the run is repeated
        self.timings = self.path / "timings.jsonl"  # values of the clock
        self.incidents = self.path / "incidents.jsonl"  # bad steps, and what was done about them
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"  # a trace of a few steps, where it was asked for
        self.curves = self.path / "curves.png"
        self.attention = self.path / "attention.png"
        self.translations = self.path / "translations"
        self.evaluations = self.path / "evaluations"  # of runs that translate nothing: losses that were asked for
        self.average = self.path / "average.json"  # of an average of checkpoints: which they are
        self.imported = self.path / "imported.json"  # of a public checkpoint: which it is
        self.results = self.path / "results.json"  # what a finished run reached


def open_run(workdir: str | Path) -> Experiment:
    """The experiment of a run folder, from its config.json.

    Raises:
        InputError: when the folder is missing, or holds no config.json, or one that is broken.
    """
    folder = RunFolder(workdir)
    if not folder.path.is_dir():
        raise InputError(f"{folder.path}: no such run folder")
    if not folder.config.is_file():
        raise InputError(f"{folder.path}: not a run folder: it has no {folder.config.name}")
    try:
        return from_json(folder.config.read_text(encoding="utf-8"))
    except ValueError as error:  # InputError and UnicodeDecodeError are ValueErrors
        raise InputError(f"{folder.config}: {error}") from None


def start(workdir: str | Path, experiment: Experiment) -> RunFolder:
    """The folder of a new run, made, or that of a run of the same experiment, to go on with.

    Placement fields may differ from those of earlier sessions. So may identity fields until the run has opened its
    logs, since an experiment whose first try failed is there to be corrected; what that try left is forgotten.

    Raises:
        InputError: when the folder belongs to another experiment (all differences are named), to an average of
            checkpoints, or to something else.
    """
    folder = RunFolder(workdir)
    for mark, what in ((folder.average, "an average of checkpoints"), (folder.imported, "an imported checkpoint")):
        if mark.exists():
            raise InputError(
                f"{folder.path}: holds {what}, which cannot be trained on; choose another --workdir, and start from it "
                f"with --init-from {folder.path}"
            )
    trained = has_trained(folder)
    if folder.config.exists():
        differences = identity_difference(open_run(workdir), experiment) if trained else []
        if differences:
            raise InputError(
                f"{folder.path}: holds a run of another experiment; undo the differences or choose another --workdir: "
                + "; ".join(differences)
            )
    elif folder.path.is_dir() and (others := _visible(folder.path)):
        raise InputError(
            f"{folder.path}: not a run folder (it has no {folder.config.name}) and not empty (it has {others[0]}); "
            "choose another --workdir"
        )
    make_folder(folder.path)
    if not trained:
        _forget(folder)
        write_atomically(folder.config, to_json(experiment))
    return folder


def has_trained(folder: RunFolder) -> bool:
    """Whether a run has begun to train: has opened its logs, or saved."""
    return folder.metrics.exists() or (folder.checkpoints.is_dir() and any(folder.checkpoints.iterdir()))


def _forget(folder: RunFolder) -> None:
    """Drops what an earlier try derived from its data; the cache notices changed inputs by itself."""
    if folder.tokenizer.exists():
        shutil.rmtree(folder.tokenizer)
    folder.environment.unlink(missing_ok=True)
    folder.filters.unlink(missing_ok=True)


def _visible(path: Path) -> list[str]:
    """Names in a folder; the lock and a file half written when a process died begin with a dot."""
    return sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))


def record_session(
    folder: RunFolder, experiment: Experiment, *, platform_name: str, devices: Sequence[str], digests: Mapping[str, str]
) -> None:
    """Appends this session to environment.json: versions, machine, digests of data and tokenizer, placement, commit.

    config.json gets the placement of this session.

    Raises:
        InputError: when data or tokenizer are not those of the sessions before, or no longer there.
    """
    check_digests(folder, {name: "none" for name in recorded_digests(folder)} | dict(digests))
    session: dict[str, Any] = {
        "versions": environment.versions(),
        "commit": environment.commit(),
        "platform": platform_name,
        "devices": list(devices),
        "processor": environment.processor(),
        "xla_flags": os.environ.get("XLA_FLAGS"),
        "digests": dict(digests),
        "seed": experiment.seed,
        "placement": _placement(experiment),
    }
    write_atomically(folder.config, to_json(experiment))
    write_atomically(folder.environment, json.dumps([*read_sessions(folder), session], indent=2) + "\n")


def read_sessions(folder: RunFolder) -> list[dict[str, Any]]:
    """The sessions of environment.json, oldest first; none when it does not exist yet.

    Raises:
        InputError: when the file is broken.
    """
    if not folder.environment.exists():
        return []
    try:
        sessions: list[dict[str, Any]] = json.loads(folder.environment.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder.environment}: is broken: {error}; delete it to record afresh") from None
    return sessions


def recorded_digests(folder: RunFolder) -> dict[str, str]:
    """What data and tokenizer were when the run first saw them, by name.

    Raises:
        InputError: when the record is broken.
    """
    first: dict[str, str] = {}
    for session in read_sessions(folder):
        first = {**session["digests"], **first}
    return first


def check_digests(folder: RunFolder, digests: Mapping[str, str]) -> None:
    """Checks digests, by the name of what they are of, against the first ever recorded in this run.

    Raises:
        InputError: when one differs; it names all that do.
    """
    first = recorded_digests(folder)
    changed = [
        f"{name}: {first[name]} -> {digest}" for name, digest in digests.items() if first.get(name, digest) != digest
    ]
    if changed:
        raise InputError(
            f"{folder.path}: not what the run was started with; bring it back or choose another --workdir: "
            + "; ".join(changed)
        )


def _placement(experiment: Experiment) -> dict[str, object]:
    return {name: value for name, value, is_placement in settings_of(experiment) if is_placement}
