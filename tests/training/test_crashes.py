"""A process that is killed anywhere in a save leaves the checkpoints before it, and the next one saves again."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_checkpoints import abstract, items_of, same_bits, save

from transformer_jax.training.checkpoints import Checkpoints

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(folder, 0, 1)
    return folder


def save_and_die(folder, kind, at):
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, HERE / "save_and_die.py", str(folder), kind, str(at)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def counts(saved, tmp_path_factory):
    """Kind -> how many of them a save has."""
    process = save_and_die(shutil.copytree(saved, tmp_path_factory.mktemp("whole") / "run"), "none", 0)
    assert process.returncode == 0, process.stderr
    operations, files = map(int, process.stdout.split())
    assert operations > 20
    assert files > 10
    return {"operation": operations, "file": files}


def crash(saved, folder, kind, at, caplog):
    """Kills a save there; whether it had become a checkpoint."""
    shutil.copytree(saved, folder)
    process = save_and_die(folder, kind, at)
    assert process.returncode == -signal.SIGKILL, process.stderr
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="transformer_jax"), Checkpoints(folder, newest=2) as checkpoints:
        assert [verdict.damage for verdict in checkpoints.verify()] == [None] * len(checkpoints.steps())
        left = [path for path in folder.iterdir() if path.name.startswith("saving-")]
        restored = checkpoints.restore(abstract(items_of(0)), set_aside=True)
        assert restored.step in (1, 2)
        assert same_bits(restored.items, items_of(restored.step))
        told = [record.message for record in caplog.records if record.name.startswith("transformer_jax")]
        assert told == [f"{folder}: checkpoint 2 was not finished and is skipped"] * bool(left)
        checkpoints.save(restored.step + 1, items_of(restored.step + 1), {})
        checkpoints.wait()
        assert [path.name for path in sorted(folder.iterdir())] == [str(restored.step), str(restored.step + 1)]
    return restored.step == 2


def test_killed_in_the_middle_of_a_save(saved, counts, tmp_path, caplog):
    assert not crash(saved, tmp_path / "file", "file", counts["file"] // 2, caplog)
    assert not crash(saved, tmp_path / "operation", "operation", counts["operation"] // 2, caplog)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["operation", "file"])
def test_killed_at_every_operation_and_at_every_file(saved, counts, tmp_path, caplog, kind):
    become = [crash(saved, tmp_path / str(at), kind, at, caplog) for at in range(1, counts[kind] + 1)]
    assert become == sorted(become)
    assert not become[0]
