"""The folder of a sweep: a run folder for each of its points, and what tells of them all."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import filelock

from transformer_jax.checked import checked_from_json, config
from transformer_jax.config import identity_difference
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.runs import RunFolder
from transformer_jax.sweeping.grid import Point, Sweep


@config
class Failure:
    """Why the run of a point has ended without a result."""

    code: int  # it exited with
    reason: str  # in one line


class SweepFolder:
    """The paths of everything that one sweep writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.sweep = self.path / "sweep.json"  # the experiment, the grid, the points
        self.table = self.path / "table.tsv"  # what became of each point
        self.picture = self.path / "sweep.png"  # the metric over each field
        self.failures = self.path / "failures"  # why points have failed
        self.script = self.path / "sweep.sh"  # of a SLURM array, where one was asked for
        self.logs = self.path / "slurm"  # what its tasks tell

    def run(self, point: Point) -> RunFolder:
        """The run folder of a point."""
        return RunFolder(self.path / point.name)

    def failure(self, point: Point) -> Path:
        """Where it stands why a point has failed, if it has."""
        return self.failures / f"{point.name}.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Within the context, other processes do not write what tells of all points; waits for them."""
        with filelock.FileLock(self.path / ".lock"):
            yield


def open_sweep(path: str | Path) -> Sweep:
    """The sweep of a folder, from its sweep.json.

    Raises:
        InputError: when the folder is missing, or holds no sweep.json, or one that is broken.
    """
    folder = SweepFolder(path)
    if not folder.sweep.is_file():
        raise InputError(f"{folder.path}: not the folder of a sweep: it has no {folder.sweep.name}")
    try:
        return checked_from_json(Sweep, folder.sweep.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder.sweep}: {error}") from None


def start(path: str | Path, sweep: Sweep) -> Sweep:
    """The sweep of a new folder, or that of its folder to go on with, with the points that are new behind the others.

    Points keep their numbers, for tasks that were submitted with them. Placement fields may differ from before.

    Raises:
        InputError: when the folder holds another sweep, that is of other fields, of an experiment that differs in
            others, or with points that are no longer there (the differences are named), or something else.
    """
    folder = SweepFolder(path)
    if not folder.sweep.exists() and folder.path.is_dir():
        others = sorted(entry.name for entry in folder.path.iterdir() if not entry.name.startswith("."))
        if others:
            raise InputError(
                f"{folder.path}: not the folder of a sweep (it has no {folder.sweep.name}) and not empty "
                f"(it has {others[0]}); choose another --workdir"
            )
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder.path}: cannot make the folder: {error.strerror}; choose another --workdir") from None
    with folder.locked():
        if folder.sweep.exists():
            before = open_sweep(path)
            _check_same(folder.path, before, sweep)
            sweep = _joined(before, sweep)
        write_atomically(folder.sweep, sweep.to_json())
    return sweep


def _check_same(path: Path, before: Sweep, sweep: Sweep) -> None:
    differences = [
        line
        for line in identity_difference(before.experiment, sweep.experiment)
        if line.partition(":")[0] not in {*before.grid, *sweep.grid}
    ]
    if set(before.grid) != set(sweep.grid):
        differences = [f"fields with several values: {', '.join(before.grid)} -> {', '.join(sweep.grid)}", *differences]
    else:
        names = {point.name for point in sweep.points}
        gone = [point.name for point in before.points if point.name not in names]
        differences += [f"points that are no longer there: {len(gone)}, first {gone[0]}"] if gone else []
    if differences:
        raise InputError(
            f"{path}: holds another sweep, to which points may be added; undo the differences or choose another "
            "--workdir: " + "; ".join(differences)
        )


def _joined(before: Sweep, sweep: Sweep) -> Sweep:
    names = {point.name for point in before.points}
    grid = {
        name: (*values, *(value for value in sweep.grid[name] if value not in values))
        for name, values in before.grid.items()
    }
    new = tuple(point for point in sweep.points if point.name not in names)
    return Sweep(experiment=sweep.experiment, grid=grid, points=before.points + new)


def write_failure(folder: SweepFolder, point: Point, failure: Failure) -> None:
    """Puts on record why a point has failed."""
    write_atomically(folder.failure(point), json.dumps(dataclasses.asdict(failure), ensure_ascii=False) + "\n")


def read_failure(folder: SweepFolder, point: Point) -> Failure | None:
    """Why a point has failed; None where it has not.

    Raises:
        InputError: when the record is broken.
    """
    path = folder.failure(point)
    try:
        return checked_from_json(Failure, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: {error}; delete it") from None
