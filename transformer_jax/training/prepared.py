"""Token shards that an experiment is trained from, and whether they are its own."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformer_jax.checked import checked_from_json, leaves_of
from transformer_jax.config import Experiment, FilterConfig, TokenizerConfig, identity_of
from transformer_jax.data.shards import Shards
from transformer_jax.errors import InputError


def facts_of(experiment: Experiment) -> dict[str, Any]:
    """What of an experiment decides about the tokens of a given text, as JSON holds it."""
    own = experiment.init_from is None  # else tokenizers are those of the checkpoint
    data = {
        name.removeprefix("data."): value for name, value in identity_of(experiment).items() if name.startswith("data.")
    }
    return {
        "data": json.loads(json.dumps(data)),
        "filters": dataclasses.asdict(experiment.filters),
        "tokenizer": dataclasses.asdict(replace(experiment.tokenizer, sampling=0.0)) if own else None,  # drawn later
        "vocab_size": experiment.model.vocab_size if own else None,
        "source_vocab_size": experiment.model.source_vocab_size if own else None,
    }


def check_facts(made: dict[str, Any], experiment: Experiment, where: str) -> None:
    """Checks that shards are those of an experiment.

    Raises:
        InputError: naming what differs.
    """
    now = dict(leaves_of(facts_of(experiment)))
    then = dict(leaves_of({**made, **{name: _filled(cls, made.get(name)) for name, cls in _CONFIGS.items()}}))
    for name in {**now, **then}:
        if name.startswith("data.") and name not in then:
            continue  # a field that has come since
        if now.get(name) != then.get(name):
            raise InputError(
                f"{where}: made with {name}={then.get(name)}, and now it is {now.get(name)}; prepare another folder"
            )


_CONFIGS = {"filters": FilterConfig, "tokenizer": TokenizerConfig}


def _filled(cls: Any, made: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields of a config that was written once; fields that have come since have their defaults."""
    return None if made is None else dataclasses.asdict(checked_from_json(cls, json.dumps(made)))


def open_shards(experiment: Experiment) -> Shards:
    """The shards that an experiment with `prepared` is trained from.

    Raises:
        InputError: on shards that are missing, and on those of another experiment.
    """
    assert experiment.prepared is not None
    shards = Shards(Path(experiment.prepared))
    check_facts(shards.manifest.experiment, experiment, f"--prepared {experiment.prepared}")
    return shards


def check_tokenizer(shards: Shards, digest: str, whose: str) -> None:
    """Checks that shards were made with this tokenizer: the same text in other pieces is other data.

    Raises:
        InputError: where they were not.
    """
    if shards.manifest.tokenizer != digest:
        raise InputError(
            f"--prepared {shards.folder}: made with the tokenizer {shards.manifest.tokenizer}, and {whose} is "
            f"{digest}; prepare another folder"
        )
