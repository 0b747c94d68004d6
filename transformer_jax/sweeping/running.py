"""The points of a sweep trained, one after another or one alone."""

import sys
import traceback
from pathlib import Path

import jax

from transformer_jax import processes
from transformer_jax.errors import FAILED_CHECK, InputError, explain, first_line
from transformer_jax.runs import InUseError
from transformer_jax.sweeping import table
from transformer_jax.sweeping.folder import Failure, SweepFolder, open_sweep, start, write_failure
from transformer_jax.sweeping.grid import Sweep
from transformer_jax.training import loop
from transformer_jax.training.metrics import say


def train_all(sweep: Sweep, path: str | Path) -> int:
    """Trains what is not finished yet, prints the table, and returns the exit code: the highest of a point that failed.

    A point that fails keeps no other from being trained, and is tried again the next time. One that diverged is not: it
    would end in the same bits. A signal stops the run it meets, saved, and the sweep.

    Raises:
        InputError: before anything is trained, when the folder holds something else; with many processes.
    """
    with processes.started(sweep.experiment.processes):
        if jax.process_count() > 1:
            raise InputError(
                f"{jax.process_count()} processes: one trains the points of a sweep one after another; many train one "
                "point, with --point"
            )
        sweep = start(path, sweep)
        code = _train_each(sweep, SweepFolder(path))
    show(path)
    return code


def _train_each(sweep: Sweep, folder: SweepFolder) -> int:
    table.write(folder.path)
    codes = [0]
    for number, point in enumerate(sweep.points, start=1):
        before = table.row(folder, point, number, sweep.experiment.evaluation.metric)
        if before.state in table.FINISHED:
            codes.append(0 if before.failure is None else before.failure.code)
            continue
        say(f"point {number} of {len(sweep.points)}: {point.name}")
        try:
            stopped = _train(sweep, folder, number)
        except InUseError as error:
            say(f"{error}; going on without it")
        except Exception as error:
            codes.append(_tell(error))
        else:
            if stopped:
                return stopped
    return max(codes)


def train_point(path: str | Path, number: int) -> int:
    """Trains one point of the sweep in a folder, counted from 1; returns the exit code of its run, and raises as it.

    Raises:
        InputError: when there is no such point.
    """
    sweep = open_sweep(path)
    if not 1 <= number <= len(sweep.points):
        raise InputError(f"--point {number}: {path} has the points 1 to {len(sweep.points)}")
    with processes.started(sweep.experiment.processes):
        say(f"point {number} of {len(sweep.points)}: {sweep.points[number - 1].name}")
        return _train(sweep, SweepFolder(path), number)


def _train(sweep: Sweep, folder: SweepFolder, number: int) -> int:
    """Trains a point among processes that are connected already, and puts on record what became of it."""
    point = sweep.points[number - 1]
    processes.on_coordinator(lambda: folder.failure(point).unlink(missing_ok=True))
    try:
        code = loop.train_among(sweep.at(point), folder.run(point).path)
    except InUseError:
        raise
    except Exception as error:
        if processes.is_coordinator():
            line, code = explain(error) or (first_line(error), FAILED_CHECK)
            write_failure(folder, point, Failure(code=code, reason=line.removeprefix("error: ")))
            table.write(folder.path)
        raise
    processes.on_coordinator(lambda: table.write(folder.path))
    return code


def _tell(error: Exception) -> int:
    """Tells of an error as the command line does; its exit code."""
    explained = explain(error)
    if explained is None:  # a mistake of ours: the traceback is needed
        explained = "".join(traceback.format_exception(error)), FAILED_CHECK
    print(explained[0], file=sys.stderr, flush=True)
    return explained[1]


def show(path: str | Path) -> None:
    """Prints the table of the sweep in a folder, and tells the best run.

    Raises:
        InputError: when the folder holds no sweep, or a file of it is broken.
    """
    folder, sweep = SweepFolder(path), open_sweep(path)
    rows = table.rows(folder, sweep)
    print(table.text(sweep, rows), flush=True)
    if (best := table.best_of(sweep, rows)) is not None:
        say(f"best: point {best.number}, {folder.run(best.point).path}")
