"""Token shards that an experiment is trained from, and whether they are its own."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from transformer_jax.checked import checked_from_json, leaves_of
from transformer_jax.config import DataConfig, Experiment, FilterConfig, ObjectiveConfig, TokenizerConfig, identity_of
from transformer_jax.data.shards import Shards, task_path
from transformer_jax.errors import InputError


class Part(NamedTuple):
    """Training data that has shards of its own: that of an experiment, or of a task that is mixed with it."""

    flag: str  # by which messages name it
    folder: Path
    data: DataConfig
    objective: ObjectiveConfig
    facts: dict[str, Any]  # what decides about the tokens of a given text, as JSON holds it


def parts_of(experiment: Experiment, folder: Path) -> list[Part]:
    """All that is prepared of an experiment in a folder; the first is its own data.

    Its facts name the data of the tasks as well: a tokenizer is trained on all text.
    """
    own = experiment.init_from is None  # else tokenizers are those of the checkpoint
    shared = {
        "filters": dataclasses.asdict(experiment.filters),
        "tokenizer": dataclasses.asdict(replace(experiment.tokenizer, sampling=0.0)) if own else None,  # drawn later
        "vocab_size": experiment.model.vocab_size if own else None,
        "source_vocab_size": experiment.model.source_vocab_size if own else None,
    }
    tasks = [
        Part(
            f"mixture.tasks.{number}.data",
            task_path(folder, number),
            task.data,
            task.objective,
            _data_of(task.data) | shared,
        )
        for number, task in enumerate(experiment.mixture.tasks)
    ]
    facts = _data_of(experiment.data) | shared
    if tasks:
        facts |= {"tasks": {str(number): task.facts["data"] for number, task in enumerate(tasks)}}
    return [Part("data", folder, experiment.data, experiment.objective, facts), *tasks]


def _data_of(data: DataConfig) -> dict[str, Any]:
    return {"data": json.loads(json.dumps(identity_of(data)))}


def check_facts(made: dict[str, Any], part: Part, where: str) -> None:
    """Checks that shards are those of a part of an experiment.

    Raises:
        InputError: naming what differs.
    """
    now = dict(leaves_of(part.facts))
    then = dict(leaves_of({**made, **{name: _filled(cls, made.get(name)) for name, cls in _CONFIGS.items()}}))
    for name in {**now, **then}:
        if name not in then and f"{name.rpartition('.')[0]}.kind" in then:
            continue  # a field of data that has come since
        if now.get(name) != then.get(name):
            raise InputError(
                f"{where}: made with {name}={then.get(name)}, and now it is {now.get(name)}; prepare another folder"
            )


_CONFIGS = {"filters": FilterConfig, "tokenizer": TokenizerConfig}


def _filled(cls: Any, made: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields of a config that was written once; fields that have come since have their defaults."""
    return None if made is None else dataclasses.asdict(checked_from_json(cls, json.dumps(made)))


def open_shards(experiment: Experiment) -> list[Shards]:
    """The shards that an experiment with `prepared` is trained from: of its own data, and of each task.

    Raises:
        InputError: on shards that are missing, and on those of another experiment.
    """
    assert experiment.prepared is not None
    opened = []
    for part in parts_of(experiment, Path(experiment.prepared)):
        shards = Shards(part.folder)
        check_facts(shards.manifest.experiment, part, f"--prepared {part.folder}")
        opened.append(shards)
    return opened


def check_tokenizer(shards: Shards, digest: str, whose: str) -> None:
    """Checks that shards were made with this tokenizer: the same text in other pieces is other data.

    Raises:
        InputError: where they were not.
    """
    check_same_tokenizer(shards.folder, shards.manifest.tokenizer, digest, whose)


def check_same_tokenizer(folder: Path, made: str, digest: str, whose: str) -> None:
    """Checks that what a folder of shards was made with is that tokenizer.

    Raises:
        InputError: where it is not.
    """
    if made != digest:
        raise InputError(
            f"--prepared {folder}: made with the tokenizer {made}, and {whose} is {digest}; prepare another folder"
        )
