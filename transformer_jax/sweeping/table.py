"""What became of each point of a sweep, as a table and as a picture."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from transformer_jax.errors import DIVERGED
from transformer_jax.files import write_atomically
from transformer_jax.runs import RunFolder, has_trained, is_in_use
from transformer_jax.sweeping.folder import Failure, SweepFolder, open_sweep, read_failure
from transformer_jax.sweeping.grid import Point, Sweep
from transformer_jax.training.metrics import read, score_of
from transformer_jax.training.shelf import Shelf

State: TypeAlias = Literal["waiting", "running", "stopped", "done", "failed", "diverged"]

FINISHED: tuple[State, ...] = ("done", "diverged")  # training again would end in the same bits


@dataclasses.dataclass(frozen=True)
class Row:
    """A point and what became of it."""

    number: int  # counted from 1
    point: Point
    step: int  # the last one that is known of
    state: State
    failure: Failure | None  # of a point that failed or diverged
    best: float | None  # validation metric, of all evaluations
    final: float | None  # of the last one


def rows(folder: SweepFolder, sweep: Sweep) -> list[Row]:
    """A row for each point.

    Raises:
        InputError: when a file of the folder is broken.
    """
    metric = sweep.experiment.evaluation.metric
    return [row(folder, point, number, metric) for number, point in enumerate(sweep.points, start=1)]


def row(folder: SweepFolder, point: Point, number: int, metric: str) -> Row:
    """The row of a point, as its run folder tells."""
    run, failure = folder.run(point), read_failure(folder, point)
    lines = read(run.metrics) if run.metrics.exists() else []
    measured = [line[f"validation/{metric}"] for line in lines if f"validation/{metric}" in line]
    saved = Shelf(run.checkpoints, newest=None, best=0, score=None).steps()
    state = _state(run, failure)
    return Row(
        number=number,
        point=point,
        step=max([0, *saved, *(line["step"] for line in lines[-1:])]),
        state=state,
        failure=failure if state in ("failed", "diverged") else None,
        best=max(measured, key=_score_of(metric), default=None),
        final=measured[-1] if measured else None,
    )


def _score_of(metric: str) -> Callable[[float], float]:
    score = score_of(metric)
    return lambda value: score({f"validation/{metric}": value})


def _state(run: RunFolder, failure: Failure | None) -> State:
    if run.results.exists():
        return "done"
    if is_in_use(run.path):
        return "running"
    if failure is not None:
        return "diverged" if failure.code == DIVERGED else "failed"
    return "stopped" if has_trained(run) else "waiting"


def text(sweep: Sweep, rows: Sequence[Row]) -> str:
    """The table for whoever reads it: aligned columns, numbers to five digits."""
    cells = [[_shown(cell) for cell in line] for line in _cells(sweep, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _shown(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell:.5g}" if isinstance(cell, float) else str(cell)


def _tsv(sweep: Sweep, rows: Sequence[Row]) -> str:
    """The table for programs: floats to the bit, nothing where nothing was measured."""
    lines = (["" if cell is None else str(cell) for cell in line] for line in _cells(sweep, rows))
    return "".join("\t".join(" ".join(cell.split()) for cell in line) + "\n" for line in lines)


def _cells(sweep: Sweep, rows: Sequence[Row]) -> Iterator[list[Any]]:
    metric = sweep.experiment.evaluation.metric
    yield ["point", *sweep.grid, "step", "state", f"best_{metric}", f"final_{metric}", "reason"]
    for row in rows:
        values = [str(row.point.values[name]) for name in sweep.grid]
        reason = "" if row.failure is None else row.failure.reason
        yield [row.number, *values, row.step, row.state, row.best, row.final, reason]


def best_of(sweep: Sweep, rows: Sequence[Row]) -> Row | None:
    """The best of the points that are done; None where nothing was measured."""
    score = _score_of(sweep.experiment.evaluation.metric)
    measured = [(score(row.best), row) for row in rows if row.state == "done" and row.best is not None]
    return max(measured, key=lambda pair: pair[0], default=(0.0, None))[1]


def write(path: str | Path) -> None:
    """Writes table and picture of the sweep in a folder, as it stands now.

    Raises:
        InputError: when they cannot be written, or a file of the folder is broken.
    """
    from transformer_jax import plots  # matplotlib, which takes a second to import, when a point is over

    folder = SweepFolder(path)
    with folder.locked():
        sweep = open_sweep(path)
        found = rows(folder, sweep)
        write_atomically(folder.table, _tsv(sweep, found))
        done = [(row.point.values, row.best) for row in found if row.state == "done" and row.best is not None]
        plots.sweep(sweep.grid, done, sweep.experiment.evaluation.metric, folder.picture)
