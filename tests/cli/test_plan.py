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


def test_an_estimate(experiment_file, capsys):
    flags = "--on v5e:4 --share 0.5 --price 3 --training.steps 3000000000000 --model.dtype bfloat16 --batch.rows 4"
    assert main(["plan", str(experiment_file), *flags.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 devices: TPU v5e, each of 197 TFLOP/s at most in bfloat16"
    assert lines[2:4] == [
        "steps            3,000,000,000,000",
        "tokens of a step 68 + 76 with padding, 17 + 19 a device",
    ]
    encoder = 68 * (4 * 36 + 2 * 6 * 11 + 2 * 17 * 6)  # projections, feed-forward, products with keys and values
    decoder = 76 * (4 * 36 + 2 * 6 * 11 + 2 * 19 * 6) + 2 * (76 + 68) * 36 + 2 * 76 * 17 * 6
    flops = 6 * (encoder + decoder + 76 * 6 * 29)
    assert lines[4] == f"FLOPs of a step  {flops:,}: those of its matrix products"
    assert lines[5] == "share of peak    50%"
    hours = 3e12 * flops / (4 * 197e12 * 0.5) / 3600
    assert hours > 1
    assert f", {hours:,.2f} hours;" in lines[6]
    assert lines[7] == f"device-hours     {4 * hours:,.2f}; {12 * hours:,.2f} at 3.0 each"
    assert main(["plan", str(experiment_file), "--on", "h100:8"]) == 0
    out = capsys.readouterr().out
    for words in (
        "does not compute: --model.dtype is float32",
        "30%: assumed, an aim",
        "--price tells what they cost",
    ):
        assert words in out


def test_help(experiment_file, capsys):
    assert main(["plan", "--help"]) == 0
    assert "plan FILE --topology v5e:16x16" in capsys.readouterr().out
    assert main(["plan", str(experiment_file), "--help"]) == 0
    words = capsys.readouterr().out
    for flag in ("--topology", "--memory", "--fit-batch", "--on", "--price", "--mesh.fsdp"):
        assert flag in words


def test_mistakes(experiment_file, refused, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(["plan"], "the experiment file comes first: transformer-jax plan FILE")
    refused(["plan", experiment_file], "--mesh.data -1: of devices that are simulated none remain; give a number")
    refused(["plan", experiment_file, "--mesh.data", "2", "--memory", "0"], "--memory 0.0: GiB above 0")
    refused(["plan", experiment_file, "--mesh.data", "2", "--fit-batch"], "--fit-batch", "--memory GIB")
    for on in ("h100", "h100:", "h100:0", "h100:-8", "h100:x"):
        refused(["plan", experiment_file, "--on", on], f"--on {on}: a device and how many of them, such as h100:8")
    refused(["plan", experiment_file, "--on", "p100:8"], "--on p100:8: no such device; known are a10, ")
    refused(["plan", experiment_file, "--on", "h100:8", "--share", "1.5"], "--share 1.5: above 0 and at most 1")
    refused(["plan", experiment_file, "--on", "h100:8", "--price", "0"], "--price 0.0: above 0")
    refused(["plan", experiment_file, "--on", "h100:8", "--fit-batch"], "compiles nothing; leave out", "--fit-batch")
    refused(["plan", experiment_file, "--price", "3"], "--share and --price: on which devices?")
    refused(["plan", experiment_file, "--topology", "v5e:2x4"], 'pip install ".[tpu]"')
