"""The points of a sweep as a SLURM array job: task i trains point i."""

import itertools
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.sweeping import table
from transformer_jax.sweeping.folder import SweepFolder, start
from transformer_jax.sweeping.grid import Sweep

# What stands on the command line of sbatch counts before what stands here. A task that was stopped or lost a peer is
# queued again under its own number; docs/launch.md says why so, and what the codes are.
_SCRIPT = """#!/bin/bash
#SBATCH --job-name="{name}"
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output="{logs}/%a.log"

srun {command} --point "$SLURM_ARRAY_TASK_ID"
code=$?

case $code in
  75 | 134 | 137 | 138)
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt 20 ]; then
      scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
esac
exit "$code"
"""


def submit(sweep: Sweep, path: str | Path, options: str) -> int:
    """Submits a task for each point that is not finished; returns the exit code.

    Args:
        sweep: the sweep.
        path: its folder, which all hosts share.
        options: of sbatch.

    Raises:
        InputError: when the folder holds something else, when sbatch is not there or refuses.
    """
    try:
        split = shlex.split(options)
    except ValueError as error:
        raise InputError(f"--slurm {options!r}: {error}") from None
    sweep = start(path, sweep)
    folder = SweepFolder(Path(path).absolute())
    table.write(folder.path)
    left = [row.number for row in table.rows(folder, sweep) if row.state not in table.FINISHED]
    if not left:
        print("all points are finished: nothing to submit")
        return 0
    folder.logs.mkdir(exist_ok=True)
    program = [sys.executable, "-m", "transformer_jax.cli.main", "sweep", str(folder.path)]
    write_atomically(
        folder.script, _SCRIPT.format(name=folder.path.name, logs=folder.logs, command=shlex.join(program))
    )
    command = ["sbatch", f"--array={_ranges(left)}", *split, str(folder.script)]
    if shutil.which("sbatch") is None:
        raise InputError(f"no sbatch on this machine; where there is one: {shlex.join(command)}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{shlex.join(command)}: exit code {done.returncode}: {done.stderr}")
    print(done.stdout, end="")
    return 0


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as sbatch takes them, such as 1,3-5."""
    groups = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    runs = [[number for _, number in group] for _, group in groups]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
