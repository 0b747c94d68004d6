"""Real processes on loopback, started by the command line: one run, whatever dies."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from real_processes import ROOT, TIMEOUT, Processes, fingerprints, free_port, write_experiment
from reversed_words import write_pairs

from transformer_jax import runs, sharding
from transformer_jax.cli.main import main
from transformer_jax.errors import DIVERGED, FAILED_CHECK, MISTAKE, PEER_LOST
from transformer_jax.training import metrics
from transformer_jax.training.fingerprints import describe
from transformer_jax.training.step import Trainer


@pytest.fixture(scope="module")
def experiment_file(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("experiments"))


@pytest.fixture(scope="module")
def start(experiment_file, tmp_path_factory):
    cache = tmp_path_factory.mktemp("compiled")

    def start(workdir, count, *flags, file=experiment_file, **options):
        return Processes(file, workdir, count, cache, *flags, **options)

    return start


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
    """The run of two processes, on two devices each, that nothing happens to."""
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    with start(workdir, 2, devices=2) as processes:
        codes, said = processes.end()
    assert codes == [0, 0], said
    return workdir


@pytest.fixture(scope="module")
def killed(start, tmp_path_factory):
    """That run: a process is killed, then the other, then one is asked to stop; and what they said each time."""
    workdir, told = tmp_path_factory.mktemp("runs") / "killed", []
    for step, victim, number in ((10, 1, signal.SIGKILL), (20, 0, signal.SIGKILL), (30, 1, signal.SIGTERM)):
        with start(workdir, 2, devices=2) as processes:
            processes.wait_for(f"step {step}/")
            processes.all[victim].send_signal(number)
            told.append(processes.end(timeout=2 * TIMEOUT if number == signal.SIGKILL else None))
    with start(workdir, 2, devices=2) as processes:
        told.append(processes.end())
    return workdir, told


@pytest.mark.parametrize(("start_number", "victim"), [(0, 1), (1, 0)])
def test_the_death_of_a_process_ends_the_other_by_one_line(killed, start_number, victim):
    codes, said = killed[1][start_number]
    survivor = 1 - victim
    assert codes[victim] == -signal.SIGKILL
    assert codes[survivor] == PEER_LOST
    errors = [line for line in said[survivor] if line.startswith("error")]  # jax's client may have a word too
    assert errors == [
        f"error: process {survivor}: process {victim} has died; start all processes again with the same command: they "
        "go on from the newest checkpoint"
    ]


def run_programs(count, text, timeout=TIMEOUT):
    """The text as a program of `count` processes, two devices each, that call themselves so many of two."""
    coordinator = f"127.0.0.1:{free_port()}"
    beginning = """
import json, sys, time
from transformer_jax import processes
from transformer_jax.config import MeshConfig, ProcessesConfig
connected = processes.started(ProcessesConfig(coordinator={!r}, count=2, index=int(sys.argv[1]), timeout={}))
"""
    program = beginning.format(coordinator, timeout) + text
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    said = [process.communicate() for process in started]
    return [process.returncode for process in started], [out for out, _ in said], [err for _, err in said]


def test_a_process_whose_peers_do_not_come_says_so_by_one_line():
    """Where jax's own time is over, it aborts."""
    codes, _, (error,) = run_programs(1, "processes._PATIENCE = 2\nwith connected: pass", timeout=2)
    assert codes == [MISTAKE]
    assert error.startswith("error: the processes did not find each other at 127.0.0.1:")
    assert "not all were there within 2 seconds" in error
    assert len(error.splitlines()) == 1


def test_what_nobody_expected_is_told_whole_by_the_process_that_met_it():
    codes, _, said = run_programs(2, "with connected: processes.on_coordinator(lambda: 1 / 0)")
    assert codes == [FAILED_CHECK, FAILED_CHECK]
    assert "ZeroDivisionError: division by zero" in said[0]
    assert "error: process 1: process 0 has stopped with an error of its own, which it tells" in said[1]


def test_the_first_parameters_of_two_processes_are_those_of_one_device_to_the_bit(experiment_file):
    text = """
from transformer_jax import runs, sharding
from transformer_jax.training.fingerprints import describe
from transformer_jax.training.step import Trainer
experiment = runs.load_experiment({!r})
with connected:
    trainer = Trainer(experiment, sharding.make_mesh(MeshConfig(data=2, fsdp=2)), 48)
    print(json.dumps(describe({{"parameters": trainer.new_state().params}})))
"""
    codes, told, said = run_programs(2, text.format(str(experiment_file)))
    assert codes == [0, 0], said
    mesh = sharding.data_mesh()
    alone = describe({"parameters": Trainer(runs.load_experiment(experiment_file), mesh, 48).new_state().params})
    found = [json.loads(line) for text in told for line in text.splitlines() if line.startswith("{")]  # not Gloo's
    assert found == [alone, alone]


def test_an_abort_waits_for_the_line_that_says_why():
    """As jax's client aborts, from a thread of its own, when the coordinator dies."""
    program = """
import ctypes, threading, time
from transformer_jax import processes
processes._hold_up_aborts()
threading.Thread(target=ctypes.CDLL(None).abort, daemon=True).start()
time.sleep(0.5)
processes.leave("error: process 0 has died", 75)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (75, "error: process 0 has died\n")


def test_a_signal_to_one_process_stops_both_at_one_saved_step(killed):
    codes, said = killed[1][2]
    assert codes == 2 * [128 + signal.SIGTERM]
    saved = [line for lines in said for line in lines if "saved step" in line]
    assert len(saved) == 1
    assert saved[0].startswith("SIGTERM: saved step ")
    assert any("SIGTERM: saving, then exiting" in line for line in said[1])


def test_the_run_is_finished_in_the_end_and_the_same_to_the_bit_as_the_unbroken_one(killed, unbroken):
    workdir, told = killed
    assert told[3][0] == [0, 0], told[3][1]
    assert (workdir / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    assert fingerprints(workdir) == fingerprints(unbroken)
    for name in ("validation.txt", "validation.json"):
        assert (workdir / "translations" / name).read_bytes() == (unbroken / "translations" / name).read_bytes()


def test_every_line_is_evaluated_once(killed):
    assert len((killed[0] / "translations" / "validation.txt").read_text().splitlines()) == 13
    assert json.loads((killed[0] / "results.json").read_text())["sentences"] == 13
    evaluated = [line for line in metrics.read(killed[0] / "metrics.jsonl") if "validation/loss" in line]
    assert [line["step"] for line in evaluated] == [24, 48]


def test_only_the_coordinator_talks_and_writes(killed):
    workdir, told = killed
    _, (first, second) = told[3]
    assert sum(line.startswith("step 48/") for line in first) == 1
    assert not any(line.startswith(("step ", "training: ")) for line in second)
    steps = [line["step"] for line in metrics.read(workdir / "metrics.jsonl") if "train/loss" in line]
    assert steps == list(range(1, 49))
    assert not list((workdir / "cache").glob("*.part-*"))
    sessions = json.loads((workdir / "environment.json").read_text())
    assert [len(session["devices"]) for session in sessions] == 4 * [4]


def test_a_second_start_of_a_run_is_refused_while_the_first_lives(start, experiment_file, tmp_path, capfd):
    run = tmp_path / "run"
    with start(run, 1) as first:
        first.wait_for("training: ")
        first.all[0].send_signal(signal.SIGSTOP)  # it lives, and does not end before the second has seen it
        capfd.readouterr()
        assert main(["train", str(experiment_file), "--workdir", str(run), "--batch.rows", "8"]) == MISTAKE
        error = capfd.readouterr().err.splitlines()[-1]
        assert error == (
            f"error: {run}: in use by process {first.all[0].pid} on {socket.gethostname()}; wait for it or choose "
            "another --workdir"
        )
    with runs.lock(run):  # free, since the first is dead
        pass


def test_a_process_that_reads_other_data_than_the_first_ends_the_run(start, tmp_path):
    write_pairs(tmp_path, "train", 52, seed=1)
    write_pairs(tmp_path, "held", 13, seed=2)
    with start(tmp_path / "run", 2, of_the_others=["--data.dir", str(tmp_path)]) as processes:
        codes, said = processes.end()
    assert codes == [MISTAKE, MISTAKE], said
    assert said[0][-1] == "error: process 0: process 1 has stopped with an error of its own, which it tells"
    (error,) = [line for line in said[1] if "error" in line]
    assert error.startswith("error: this process reads other data than process 0: train data: ")
    assert "validation data" not in error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_mistake_that_the_coordinator_finds_is_told_to_all(start, unbroken):
    with start(unbroken, 2, "--seed", "3") as processes:
        codes, said = processes.end()
    assert codes == [MISTAKE, MISTAKE]
    assert any("seed: 0 -> 3" in line for lines in said for line in lines)


def assert_same_up_to_rounding(one, other):
    ours, theirs = (
        [line for line in metrics.read(run / "metrics.jsonl") if "train/loss" in line] for run in (one, other)
    )
    assert len(ours) == len(theirs) == 48
    for left, right in zip(ours, theirs, strict=True):
        assert left["train/examples"] == right["train/examples"]
        np.testing.assert_allclose(left["train/loss"], right["train/loss"], rtol=1e-5)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_as_one(start, unbroken, tmp_path):
    """And on another mesh; and the other way around."""
    run, alone, four = tmp_path / "run", (1, "--mesh.data", "4"), {"devices": 4}
    with start(run, 2, devices=2) as processes:
        processes.wait_for("step 20/")
        processes.all[0].send_signal(signal.SIGTERM)
        assert set(processes.end()[0]) == {128 + signal.SIGTERM}
    with start(run, *alone, **four) as processes:
        processes.wait_for("step 32/")
        processes.all[0].send_signal(signal.SIGINT)
        assert processes.end()[0] == [128 + signal.SIGINT]
    with start(run, 2, "--mesh.data", "2", "--mesh.fsdp", "2", devices=2) as processes:
        codes, said = processes.end()
    assert codes == [0, 0], said
    assert_same_up_to_rounding(run, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(4, 1), (2, 4)])
def test_many_processes_are_the_same_run(start, tmp_path, count, devices):
    """Four processes; and two of four devices each. One dies, all start again; one process alone is the same run."""
    mesh = ["--mesh.fsdp", "2", "--batch.rows", "8"]
    with start(tmp_path / "many", count, *mesh, devices=devices) as processes:
        processes.wait_for("step 20/")
        processes.all[1].kill()
        codes, said = processes.end()
    assert codes == [-signal.SIGKILL if index == 1 else PEER_LOST for index in range(count)]
    assert "process 1 has died" in str(said[0])
    for other in said[2:]:
        assert "process 0 tells of the death of another" in str(other)
    with start(tmp_path / "many", count, *mesh, devices=devices) as processes:
        codes, said = processes.end()
    assert codes == count * [0], said
    with start(tmp_path / "alone", 1, *mesh, devices=count * devices) as processes:
        codes, said = processes.end()
    assert codes == [0], said
    assert_same_up_to_rounding(tmp_path / "many", tmp_path / "alone")


@pytest.mark.slow
def test_a_save_that_fails_ends_all_by_one_line_and_the_run_goes_on_to_the_same_bits(start, unbroken, tmp_path):
    run = tmp_path / "run"
    with start(run, 2, devices=2) as processes:
        processes.wait_for("step 10/")
        (run / "checkpoints").rename(tmp_path / "checkpoints")
        (run / "checkpoints").touch()  # no folder
        codes, said = processes.end()
    assert codes == [MISTAKE, MISTAKE], said
    assert sum("could not be saved" in line for lines in said for line in lines if line.startswith("error: ")) == 1
    (run / "checkpoints").unlink()
    (tmp_path / "checkpoints").rename(run / "checkpoints")
    with start(run, 2, devices=2) as processes:
        codes, said = processes.end()
    assert codes == [0, 0], said
    assert (run / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    assert fingerprints(run) == fingerprints(unbroken)


@pytest.mark.slow
def test_an_evaluation_of_many_batches_does_not_hang(start, tmp_path):
    """Programs that nothing orders, on two devices in each of two processes: gloo hangs where many are under way."""
    write_pairs(tmp_path, "train", 53, seed=1)
    write_pairs(tmp_path, "held", 250, seed=2)
    flags = ["--data.dir", str(tmp_path), "--training.steps", "2", "--evaluation.every", "2"]
    with start(tmp_path / "run", 2, *flags, devices=2) as processes:
        codes, said = processes.end()
    assert codes == [0, 0], said


def test_processes_go_back_together_and_give_up_together(start, tmp_path):
    """A bound so low that clean data passes it, as soon as there is a mean to pass."""
    flags = ["--stability.spike", "0.001", "--stability.max-rollbacks", "1"]
    with start(tmp_path / "run", 2, *flags) as processes:
        codes, said = processes.end()
    assert codes == [DIVERGED, DIVERGED], said
    assert sum("going back to step 16, and on behind the data in between" in line for line in said[0]) == 1
    assert not any("going back" in line for line in said[1])
    incidents = metrics.read(tmp_path / "run" / "incidents.jsonl")
    assert [line["what"] for line in incidents] == ["skipped step", "went back", "skipped step", "gave up"]
    steps = [line["step"] for line in metrics.read(tmp_path / "run" / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
