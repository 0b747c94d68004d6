"""Scores of a split or of two files, printed and written down with their signatures."""

import json
import math
import shutil

import pytest

from transformer_jax.cli.main import main
from transformer_jax.config import Experiment, Numerals, TrainingConfig, to_json
from transformer_jax.runs import RunFolder


@pytest.fixture
def data(experiment_file, tmp_path):
    """A copy of the folder of the data."""
    return shutil.copytree(experiment_file.parent, tmp_path / "data")


def evaluated(run, name):
    """The scores written under a name, and the translations."""
    folder = RunFolder(run).translations
    return json.loads((folder / f"{name}.json").read_text()), (folder / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("devices", ["3", pytest.param("1", marks=pytest.mark.slow)])
def test_a_split(run, devices, capsys):
    """On three devices, which cannot share five rows evenly, too."""
    assert main(["evaluate", str(run), "--split", "validation", "--step", "2", "--devices", devices]) == 0
    out = capsys.readouterr().out
    scores, translations = evaluated(run, "validation")
    assert len(translations) == scores["sentences"] == 5
    assert (scores["step"], scores["decoding"]["beam"]) == (2, 2)
    assert scores["bleu_signature"] in out
    assert "version:" in scores["chrf_signature"]
    # With zeros for parameters each of the 29 pieces is as likely as the next: the loss is ln 29.
    assert scores["validation/loss"] == pytest.approx(math.log(29), rel=1e-6)
    assert scores["validation/perplexity"] == pytest.approx(29, rel=1e-5)
    assert "validation/loss 3.3673, validation/perplexity 29.0000" in out


def test_against_another_system_and_on_tokens_of_moses(run, data, capsys):
    arguments = ["evaluate", str(run), "--split", "validation", "--tokenised", "de"]
    assert main([*arguments, "--against", str(data / "held.b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    scores, _ = evaluated(run, "validation")
    assert "tok:13a" in scores["bleu_signature"]
    assert scores["tokenised"].keys() == {"bleu", "split_bleu", "bleu_signature", "split_bleu_signature"}
    (line,) = [line for line in lines if scores["tokenised"]["split_bleu_signature"] in line]
    assert line.startswith("validation: BLEU on Moses tokens ")
    for name in ("BLEU: this run", "chrF2: this run", "TER: this run"):
        (line,) = [line for line in lines if line.startswith(name)]
        assert "p = " in line
        assert "bs:1000|seed:12345" in line


def test_two_files(run, data, capsys):
    (data / "new.a").write_text("abc abc\nd d\n")
    (data / "new.b").write_text("cba cba\nd d\n")
    flags = ["--source", str(data / "new.a"), "--target", str(data / "new.b"), "--beam", "1"]
    assert main(["evaluate", str(run), *flags]) == 0
    scores, translations = evaluated(run, "file-new.a")
    assert len(translations) == scores["sentences"] == 2
    assert scores["decoding"]["beam"] == 1
    assert str(RunFolder(run).translations / "file-new.a.txt") in capsys.readouterr().out


def test_data_that_moved(run, data, refused):
    assert main(["evaluate", str(run), "--split", "validation", "--data.dir", str(data)]) == 0
    (data / "held.a").write_text("other\n" * 5)
    refused(["evaluate", run, "--split", "validation", "--data.dir", data], "not what the run was started with")


def test_mistakes(run, data, tmp_path, refused):
    refused(["evaluate", run], f"--split test: the experiment of {run} has no test pairs")
    refused(["evaluate", run, "--split", "train"], "--split", "'validation', 'test'")
    refused(["evaluate", run, "--source", data / "held.a"], "--source and --target belong together")
    refused(["evaluate", run, "--target", data / "held.b"], "--source and --target belong together")
    files = ["--source", data / "held.a", "--target", data / "held.b"]
    refused(["evaluate", run, *files, "--data.dir", "x"], "--data.dir x: of a split; the files are named by --source")
    files = ["--source", data / "held.a", "--target", data / "none"]
    refused(["evaluate", run, *files], f"--target {data / 'none'}: no such file")
    files = ["--source", data / "held.a", "--target", data / "train.b"]
    refused(["evaluate", run, *files], "has 5 lines", "has 41")
    refused(["evaluate", run, "--split", "validation", "--data.dir", tmp_path / "none"], "none/held.a: no such file")
    against = ["--split", "validation", "--against"]
    refused(["evaluate", run, *against, data / "train.b"], f"--against {data / 'train.b'}: 41 lines for 5 sentences")
    refused(["evaluate", run, *against, data / "none"], "none: cannot be read")
    refused(["evaluate", run, "--split", "validation", "--step", "5"], "no checkpoint of step 5")
    refused(
        ["evaluate", run, "--split", "validation", "--tokenised", "xx"], "--tokenised xx: Moses knows as, bn, ca, cs"
    )
    numerals = RunFolder(tmp_path / "numerals")
    numerals.path.mkdir()
    numerals.config.write_text(to_json(Experiment(data=Numerals(), training=TrainingConfig(steps=3))))
    refused(["evaluate", numerals.path, "--data.dir", data], "--data.dir", "numerals is in no folder")
