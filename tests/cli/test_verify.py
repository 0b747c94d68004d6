"""transformer-jax verify: every checkpoint, and 1 where one is damaged."""

import shutil

import pytest

from transformer_jax.cli.main import main
from transformer_jax.training.checkpoints import Checkpoints

# Orbax abandons the other reads of a damaged checkpoint in the middle.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_intact(run, capsys):
    before = sorted(run.rglob("*"))
    assert main(["verify", str(run)]) == 0
    assert capsys.readouterr().out == "step 2: intact\nstep 3: intact\n"
    assert sorted(run.rglob("*")) == before


def test_damaged_and_set_aside(run, capsys):
    shutil.copytree(run / "checkpoints" / "3", run / "checkpoints" / "damaged-4")
    (run / "checkpoints" / "2" / "parameters" / "_METADATA").unlink()
    assert main(["verify", str(run)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "step 2: damaged: parameters/_METADATA is missing",
        "step 3: intact",
        f"{run}/checkpoints/damaged-4: damaged, and set aside by the run",
    ]
    with Checkpoints(run / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [2, 3]


def test_without_checkpoints_or_run(run, tmp_path, refused):
    shutil.rmtree(run / "checkpoints")
    refused(["verify", run], f"{run}/checkpoints: no checkpoints", "train first")
    refused(["verify", tmp_path / "none"], "none", "run folder")
