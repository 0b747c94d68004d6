"""The verb verify."""

from collections.abc import Sequence
from pathlib import Path

from transformer_jax.cli.arguments import Run, call
from transformer_jax.data.shards import MANIFEST, Shards, task_path
from transformer_jax.errors import FAILED_CHECK, InputError
from transformer_jax.runs import RunFolder, open_run


def main(arguments: Sequence[str]) -> int:
    """Verifies; returns the exit code."""
    return call("verify", verify, arguments)


def verify(run: Run) -> int:
    """Checks every file and every array of a run's checkpoints; exits with 1 where one is damaged, and changes nothing.

    Args:
        run: the run folder, or a folder of token shards, of which every byte is checked, those of tasks included.
    """
    if (run / MANIFEST).exists():
        return _verify_shards(run)
    folder = RunFolder(run)
    open_run(run)  # what is no run is told before jax is imported
    import jax

    from transformer_jax.training.checkpoints import Checkpoints

    jax.config.update("jax_platforms", "cpu")  # an accelerator may be in use, or have no room for a whole checkpoint
    code, found = 0, False
    with Checkpoints(folder.checkpoints) as checkpoints:
        for verdict in checkpoints.verify():
            found = True
            print(f"step {verdict.step:,}: {verdict}", flush=True)
            code = code if verdict.damage is None else FAILED_CHECK
        for name in checkpoints.aside():
            print(f"{folder.checkpoints / name}: damaged, and set aside by the run")
    if not found:
        raise InputError(f"{folder.checkpoints}: no checkpoints; train first")
    return code


def _verify_shards(folder: Path) -> int:
    code, own = 0, Shards(folder)
    tasks = range(len(own.manifest.experiment.get("tasks", ())))
    for shards in (own, *(Shards(task_path(folder, number)) for number in tasks)):
        for path, intact in shards.verify():
            print(f"{path}: {'intact' if intact else 'damaged'}", flush=True)
            code = code if intact else FAILED_CHECK
    return code
