"""The launch files of docs/launch.md: their scripts run, with stand-ins for what starts processes; flags are real."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from transformer_jax import errors
from transformer_jax.cli.main import main
from transformer_jax.config import ProcessesConfig
from transformer_jax.training import loop

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SLURM = [block for block in SHELL if "#SBATCH" in block]

(JOB_SET,) = [yaml.safe_load(block) for block in YAML]
(REPLICATED,) = JOB_SET["spec"]["replicatedJobs"]
JOB = REPLICATED["template"]["spec"]
(CONTAINER,) = JOB["template"]["spec"]["containers"]

STAND_INS = {
    "transformer-jax": 'printf "%s\\n" "$@" > "$CALLS/$$"\nexit "${CODE:-0}"',
    "srun": 'while [[ "$1" == -* ]]; do shift; done\nexec "$@"',
    "mpirun": 'while [ "$1" != sh ]; do shift; done\nexport OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=1\nexec "$@"',
    "gcloud": 'for argument in "$@"; do :; done\nexec bash -c "${argument#--command=}"$\'\\nwait\'',
    "pkill": 'printf "%s\\n" "$@" > "$CALLS/pkill"',
    "scontrol": 'echo "$@" > "$CALLS/scontrol"',
}
VARIABLES = {
    **{"FIRST_HOST": "first", "NUMBER": "1", "TPU": "name", "ZONE": "zone"},
    **{"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2"},
}


@pytest.fixture
def calls(tmp_path):
    """What the stand-ins are called with, a file a call."""
    folder = tmp_path / "calls"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path, calls):
    """Starts a script in an empty folder, with stand-ins first in the path."""

    def start(script, **variables):
        stand_ins = STAND_INS | {"srun": variables.pop("srun", STAND_INS["srun"])}
        installed = tmp_path / "transformer_jax" / ".venv" / "bin"  # on a TPU
        installed.mkdir(parents=True)
        for name, body in stand_ins.items():
            (installed / name).write_text(f"#!/bin/bash\n{body}\n")
            (installed / name).chmod(0o755)
        paths = {"PATH": f"{installed}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "CALLS": str(calls)}
        environment = {**os.environ, **VARIABLES, **paths, **variables}
        return subprocess.Popen(["bash", "-c", script], env=environment, cwd=tmp_path, stdout=subprocess.PIPE)

    return start


@pytest.fixture
def launched(monkeypatch):
    """The experiments that a training would be launched with."""
    experiments = []
    monkeypatch.setattr(loop, "train", lambda experiment, workdir, profile: experiments.append(experiment) or 0)
    monkeypatch.chdir(ROOT)
    return experiments


def indices_of(experiments):
    return sorted(experiment.processes.index for experiment in experiments)


@pytest.mark.parametrize("script", SHELL)
def test_a_script_runs_and_its_flags_are_real(script, start, calls, launched):
    start(script).communicate()
    for call in calls.iterdir():
        if call.name.isdigit():
            assert main(call.read_text().splitlines()) == 0
    if "pkill" in script:
        assert (calls / "pkill").read_text() == "-TERM\n-f\ntransformer-jax trai[n]\n"
    elif "--processes" not in script:
        assert [experiment.processes for experiment in launched] == [ProcessesConfig()]
    elif "for index" in script:
        assert indices_of(launched) == [0, 1]
    else:
        assert indices_of(launched) == [1]
        assert launched[0].processes.count == 4
        assert launched[0].processes.coordinator == "first:29400"


def test_the_set_of_jobs(launched):
    program, *arguments = [
        argument.replace(f"$({CONTAINER['env'][0]['name']})", "3") for argument in CONTAINER["command"]
    ]
    assert program == "transformer-jax"
    assert main(arguments) == 0
    processes = launched[0].processes
    assert processes.index == 3
    assert processes.count == JOB["completions"] == JOB["parallelism"]
    name = JOB_SET["metadata"]["name"]
    assert processes.coordinator == f"{name}-{REPLICATED['name']}-0-0.{name}:29400"
    (rule,) = JOB["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == CONTAINER["name"]
    assert rule["onExitCodes"]["values"] == [errors.MISTAKE, errors.DIVERGED]
    volumes = {volume["name"] for volume in JOB["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes


def test_the_table_of_exit_codes():
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE)
    codes = [errors.FAILED_CHECK, errors.MISTAKE, errors.DIVERGED, errors.PEER_LOST]
    signals = ", ".join(str(128 + number) for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM))
    assert rows == ["0", *map(str, codes), "134", signals, "137"]


class TestSlurm:
    @pytest.mark.parametrize("script", SLURM)
    @pytest.mark.parametrize(
        ("code", "restarts", "again"),
        [
            (0, "0", False),
            (2, "0", False),
            (3, "0", False),
            (75, "19", True),
            (134, "0", True),
            (138, "0", True),
            (75, "20", False),
        ],
    )
    def test_what_is_queued_again(self, script, code, restarts, again, start, calls):
        process = start(script, CODE=str(code), SLURM_RESTART_COUNT=restarts)
        process.communicate()
        assert process.returncode == code
        assert (calls / "scontrol").exists() == again
        if again:
            assert (calls / "scontrol").read_text() == "requeue 7\n"

    def test_a_signal_to_the_shell_is_passed_on_and_waited_for(self, start, calls):
        (script,) = [script for script in SLURM if "B:USR1" in script]
        # Ready as soon as the shell catches SIGUSR1, bit 9 of a mask in hex; over by itself in some seconds.
        srun = """
            trap 'sleep 0.2; touch "$CALLS/saved"; exit 138' USR1
            for _ in {1..999}; do grep -q "^SigCgt:.*[2367abef]..$" /proc/$PPID/status && break; sleep 0.01; done
            echo ready
            for _ in {1..999}; do sleep 0.01; done
        """
        process = start(script, srun=srun)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        process.communicate()
        assert process.returncode == 138
        assert {call.name for call in calls.iterdir()} == {"saved", "scontrol"}
