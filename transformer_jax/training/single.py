"""A run folder of one checkpoint, to translate with or to start from, not to be trained on."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from transformer_jax.config import Experiment, to_json
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.models import Parameters
from transformer_jax.runs import RunFolder
from transformer_jax.training.checkpoints import Checkpoints


def write_run(
    output: Path, experiment: Experiment, params: Parameters, step: int, rest: Callable[[RunFolder], None]
) -> None:
    """Makes the folder beside its place and moves it there whole, so that half of one is never taken for a run.

    Args:
        output: the new folder.
        experiment: what config.json says.
        params: of the checkpoint.
        step: of the checkpoint.
        rest: writes all else into the folder.

    Raises:
        InputError: when it cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
            folder = RunFolder(Path(beside, output.name))
            folder.path.mkdir()
            write_atomically(folder.config, to_json(experiment))
            rest(folder)
            with Checkpoints(folder.checkpoints) as checkpoints:
                checkpoints.save(step, {"parameters": params}, position={"step": step})
                checkpoints.wait()
            os.replace(folder.path, output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}; choose another place") from None
