"""The verb plan: a table on standard output, an exit code that tells whether it fits, mistakes in one line."""

import importlib.util

from transformer_jax.cli.main import main


def test_a_plan_that_does_not_fit(spawn, command, experiment_file):
    flags = "--mesh.data 2 --batch.rows 4 --model.dropout 0 --memory 0.0001"
    process = spawn([*command, "plan", str(experiment_file), *flags.split()])
    out, err = process.communicate()
    lines = out.splitlines()
    assert process.returncode == 1, err
    assert lines[0] == "2 devices: simulated; mesh data 2, fsdp 1, tensor 1"
    kernels = 3 * 4 * 6 * 6 + 2 * 2 * 6 * 11 + 29 * 6  # three attentions, two feed-forward networks, the embedding
    parameters = kernels + 2 * (11 + 6) + 5 * 2 * 6  # biases of the networks, five norms
    assert lines[2] == f"parameters       {parameters:,}"
    assert lines[3] == "rows of a batch  4 of 17 + 19 tokens"
    assert "an estimate" in out
    assert "all-reduce" in out
    assert lines[-1].startswith("does not fit: takes 0.00 GiB of 0.00 GiB a device")


def test_rows_that_the_devices_cannot_share(spawn, command, experiment_file):
    process = spawn([*command, "plan", str(experiment_file), "--mesh.data", "256"])
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err == "error: batch.rows=5: not a multiple of the 256 devices that share a batch; 256 would be\n"


def test_help(experiment_file, capsys):
    assert main(["plan", "--help"]) == 0
    assert "plan FILE --topology v5e:16x16" in capsys.readouterr().out
    assert main(["plan", str(experiment_file), "--help"]) == 0
    words = capsys.readouterr().out
    for flag in ("--topology", "--memory", "--fit-batch", "--mesh.fsdp"):
        assert flag in words


def test_mistakes(experiment_file, refused, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(["plan"], "the experiment file comes first: transformer-jax plan FILE")
    refused(["plan", experiment_file], "--mesh.data -1: of devices that are simulated none remain; give a number")
    refused(["plan", experiment_file, "--mesh.data", "2", "--memory", "0"], "--memory 0.0: GiB above 0")
    refused(["plan", experiment_file, "--mesh.data", "2", "--fit-batch"], "--fit-batch", "--memory GIB")
    refused(["plan", experiment_file, "--topology", "v5e:2x4"], 'pip install ".[tpu]"')
