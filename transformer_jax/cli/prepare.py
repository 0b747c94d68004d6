"""Tokenises the training data of an experiment once, into shards that a run streams: for sets larger than memory.

    transformer-jax prepare FILE --output FOLDER [--workers N] [--FIELD VALUE ...]
    transformer-jax train FILE --workdir DIR --prepared FOLDER

Every field of the experiment is a flag; transformer-jax prepare FILE --help lists them with the values of the file.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import over_file
from transformer_jax.config import Experiment
from transformer_jax.data.shards import Manifest, task_path
from transformer_jax.errors import InputError


def main(arguments: Sequence[str]) -> int:
    """Prepares; returns the exit code."""
    return over_file("prepare FILE --output FOLDER", __doc__, _prepare_of, arguments)


def _cores() -> int:
    """Those that this process may use; of all, where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _described(made: Manifest) -> str:
    """What there is of shards."""
    tokens = [sum(getattr(shard, f"{side}_tokens") for shard in made.shards) for side in ("source", "target")]
    told = f"{tokens[1]:,} tokens" if made.plain else f"{tokens[0]:,} + {tokens[1]:,} tokens"
    return f"{made.examples:,} {'texts' if made.plain else 'pairs'}, {told}, {len(made.shards):,} shards"


def _prepare_of(default: Experiment) -> Callable[..., int]:
    def prepare(
        output: Path,
        experiment: Annotated[Experiment, tyro.conf.arg(name="")] = default,
        workers: int = -1,
    ) -> int:
        """Writes token shards; the same command goes on where it was interrupted.

        Args:
            output: the folder of the shards, which `train --prepared` takes.
            experiment: the experiment of the file, each of its fields a flag; data, filters and tokenizer count.
            workers: processes that tokenise, the same bytes whatever their number; -1 is one for each core.
        """
        from transformer_jax.training import preparing

        count = _cores() if workers == -1 else workers
        if count < 1:
            raise InputError(f"--workers {workers}: a number above 0, or -1 for all cores")
        own, *tasks = preparing.prepare(experiment, output, count)
        print(f"{output}: {_described(own)}")
        for number, made in enumerate(tasks):
            print(f"{task_path(output, number)}: {_described(made)}")
        return 0

    return prepare
