"""Trains an experiment and kills this process where it is told to: `run_and_die.py FILE WORKDIR [step|save N]`.

step N: behind step N, before its logs and checkpoint. save N: while the checkpoint of step N is being written.
"""

import os
import signal
import sys

from transformer_jax.runs import load_experiment
from transformer_jax.training import loop
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.metrics import ProgressReport


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arrange_death(where: str, at: int) -> None:
    if where == "step":
        advance = ProgressReport.advance

        def advance_or_die(self, step):
            advance(self, step)
            if step == at:
                die()

        ProgressReport.advance = advance_or_die
    else:
        save = Checkpoints.save

        def save_and_die(self, step, *args):
            seconds = save(self, step, *args)
            if step == at:
                die()
            return seconds

        Checkpoints.save = save_and_die


if __name__ == "__main__":
    file, workdir, *death = sys.argv[1:]
    if death:
        arrange_death(death[0], int(death[1]))
    sys.exit(loop.train(load_experiment(file), workdir))
