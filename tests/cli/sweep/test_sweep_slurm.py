"""A sweep as an array of SLURM, a point each task."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from grids import GRID, NAMES, table_of

from transformer_jax.cli.main import main


class TestSlurm:
    STAND_INS = {  # noqa: RUF012  # not changed
        "sbatch": 'printf "%s\\n" "$@" > "$CALLS/sbatch"\necho "Submitted batch job 7"\nexit "${CODE:-0}"',
        "srun": 'printf "%s\\n" "$@" > "$CALLS/srun"\nexit "${CODE:-0}"',
        "scontrol": 'echo "$@" > "$CALLS/scontrol"',
    }

    @pytest.fixture
    def calls(self, tmp_path, monkeypatch):
        """What stand-ins for SLURM are called with, by their names."""
        commands, calls = tmp_path / "commands", tmp_path / "calls"
        for folder in (commands, calls):
            folder.mkdir()
        for name, body in self.STAND_INS.items():
            (commands / name).write_text(f"#!/bin/bash\n{body}\n")
            (commands / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(calls))
        return lambda name: (calls / name).read_text().splitlines() if (calls / name).exists() else None

    def test_a_task_trains_its_point(self, sweep, stand_in, calls, tmp_path, monkeypatch, capsys):
        assert sweep(*GRID, "--slurm", "--gpus=1 --array=1-6%2") == 0
        assert capsys.readouterr().out == "Submitted batch job 7\n"
        script = tmp_path / "lr" / "sweep.sh"
        assert calls("sbatch") == ["--array=1-6", "--gpus=1", "--array=1-6%2", str(script)]
        assert not stand_in.trained
        assert table_of(tmp_path / "lr")["state"] == ["waiting"] * 6
        for line in script.read_text().splitlines():
            if line.startswith("#SBATCH --output="):
                (output,) = shlex.split(line.partition("=")[2])  # of a folder with a space, too
                assert Path(output).parent.is_dir()
        for task in (4, 2):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
            subprocess.run(["bash", str(script)], check=True)
            program, *arguments = calls("srun")
            assert (program, arguments[:2]) == (sys.executable, ["-m", "transformer_jax.cli.main"])
            assert main(arguments[2:]) == 0
        assert stand_in.trained == [NAMES[3], NAMES[1]]

        sweep(*GRID, "--slurm", "--gpus=1")  # what is finished is not submitted again
        assert calls("sbatch")[0] == "--array=1,3,5-6"

    @pytest.mark.parametrize(
        ("code", "restarts", "again"), [(0, 0, False), (3, 0, False), (138, 19, True), (75, 20, False)]
    )
    def test_what_is_queued_again(self, code, restarts, again, sweep, calls, tmp_path, monkeypatch):
        sweep(*GRID, "--slurm=")
        for name, value in {"CODE": code, "SLURM_RESTART_COUNT": restarts, "SLURM_JOB_ID": 8}.items():
            monkeypatch.setenv(name, str(value))
        assert subprocess.run(["bash", str(tmp_path / "lr" / "sweep.sh")], check=False).returncode == code
        assert calls("scontrol") == (["requeue 8"] if again else None)

    def test_mistakes(self, sweep, calls, tmp_path, monkeypatch, capfd):
        monkeypatch.setenv("CODE", "1")
        assert sweep(*GRID, "--slurm", "--gpus=1") == 2
        script = tmp_path / "lr" / "sweep.sh"
        assert capfd.readouterr().err == f"error: sbatch --array=1-6 --gpus=1 {script}: exit code 1:\n"
        monkeypatch.setenv("PATH", str(tmp_path))
        assert sweep(*GRID, "--slurm", "--gpus=1") == 2
        told = f"error: no sbatch on this machine; where there is one: sbatch --array=1-6 --gpus=1 {script}\n"
        assert capfd.readouterr().err == told

    def test_nothing_is_left(self, sweep, calls, capsys):
        sweep(*GRID)
        capsys.readouterr()
        assert sweep(*GRID, "--slurm", "") == 0
        assert capsys.readouterr().out == "all points are finished: nothing to submit\n"
        assert calls("sbatch") is None
