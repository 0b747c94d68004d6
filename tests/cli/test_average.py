"""From the command line: which checkpoints, and what the averaged folder is good for."""

import io

from transformer_jax.cli.main import main
from transformer_jax.runs import RunFolder
from transformer_jax.translation import Translator


def test_an_average_is_decoded_and_not_trained_on(trained, experiment_file, tmp_path, capfd, monkeypatch):
    output = tmp_path / "average"
    assert main(["average", str(trained), "--output", str(output), "--newest", "2"]) == 0
    assert capfd.readouterr().out == (f"{trained}: step 2\n{trained}: step 3\naverage of 2 checkpoints in {output}\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc abc\n\n")))
    assert main(["translate", str(output)]) == 0
    assert capfd.readouterr().out == "".join(
        f"{line}\n" for line in Translator.from_run(output).translate(["abc abc", ""])
    )
    assert main(["train", str(experiment_file), "--workdir", str(output), "--batch.rows", "8"]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    said = f"error: {output}: holds an average of checkpoints, which cannot be trained on; choose another --workdir"
    assert last == f"{said}, and start from it with --init-from {output}"


def test_an_average_is_bound_to_the_tokenizer_of_its_run(trained, foreign, tmp_path, refused, capfd):
    output = tmp_path / "average"
    assert main(["average", str(trained), "--output", str(output), "--newest", "1"]) == 0
    foreign.save(RunFolder(output).tokenizer)
    refused(["attend", output, "abc"], f"{output}: not what the run was started with", "tokenizer: ")


def test_mistakes(trained, tmp_path, refused):
    output = tmp_path / "out"
    refused(["average", trained, "--output", output], "--newest, --best")
    refused(["average", trained, "--output", output, "--newest", 1, "--best", 1], "--newest", "--best", "not allowed")
    refused(["average", trained, "--newest", 1], "--output")
    refused(["average", "--output", output, "--newest", 1], "0 runs")
    refused(["average", trained, "--output", output, "--newest", 5], "2 checkpoints, fewer than --newest 5")
    refused(["average", trained, "--output", tmp_path, "--newest", 0], "0 checkpoints")
    refused(["average", trained, "--output", output, "--best", 1], "0 evaluated checkpoints, fewer than --best 1")
    refused(["average", trained, "--output", trained, "--newest", 1], "exists and is not empty")
    assert not output.exists()
