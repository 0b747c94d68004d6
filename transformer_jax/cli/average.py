"""The verb average."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from transformer_jax.cli.arguments import call

_CHOICE = tyro.conf.create_mutex_group(required=True)


def main(arguments: Sequence[str]) -> int:
    """Averages; returns the exit code."""
    return call("average", average, arguments)


def average(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")],
    output: Path,
    newest: Annotated[int | None, _CHOICE] = None,
    best: Annotated[int | None, _CHOICE] = None,
) -> int:
    """Averages the weights of checkpoints into a new run folder, which can be translated with but not trained on.

    Args:
        runs: the run folders, of one and the same model and tokenizer.
        output: the new run folder.
        newest: takes this many checkpoints of each run, the newest.
        best: takes this many checkpoints of each run, the best by its experiment's evaluation.metric.
    """
    from transformer_jax.training import averaging

    by: Literal["newest", "best"] = "newest" if best is None else "best"
    count = newest if best is None else best
    assert count is not None  # the group of the two flags requires one
    members = averaging.average(runs, output, by=by, count=count)
    for member in members:
        print(f"{member.run}: step {member.step:,}")
    print(f"average of {len(members)} checkpoints in {output}")
    return 0
