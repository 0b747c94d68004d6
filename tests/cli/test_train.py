"""Every field of the experiment is a flag; mistakes in flags are one line that says what would be right."""

import dataclasses
import io
from pathlib import Path

import pytest

from transformer_jax.cli.main import main
from transformer_jax.runs import load_experiment
from transformer_jax.training import loop


@pytest.fixture
def launched(monkeypatch):
    """What a training would be launched with."""
    calls = []
    monkeypatch.setattr(loop, "train", lambda *arguments, **options: calls.append((*arguments, options)) or 0)
    return calls


def test_the_experiment_of_the_file(experiment_file, launched):
    assert main(["train", str(experiment_file), "--workdir", "somewhere"]) == 0
    assert launched == [(load_experiment(experiment_file), Path("somewhere"), {"profile": False})]


def test_profile(experiment_file, launched):
    assert main(["train", str(experiment_file), "--workdir", "somewhere", "--profile"]) == 0
    assert launched[0][-1] == {"profile": True}


def test_fields_as_flags(experiment_file, launched):
    flags = "--model.dropout 0.25 --model.num_heads 2 --training.steps None --training.epochs 7 --data.dir there"
    assert main(["train", str(experiment_file), *flags.split(), "--workdir", "x", "--schedule.kind", "cosine"]) == 0
    ((experiment, *_),) = launched
    expected = load_experiment(experiment_file)
    expected = dataclasses.replace(
        expected,
        model=dataclasses.replace(expected.model, dropout=0.25, num_heads=2),
        training=dataclasses.replace(expected.training, steps=None, epochs=7),
        data=dataclasses.replace(expected.data, dir="there"),
        schedule=dataclasses.replace(expected.schedule, kind="cosine"),
    )
    assert experiment == expected


def test_help_has_every_field_with_the_value_of_the_file(experiment_file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", str(experiment_file), "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--workdir PATH" in words
    assert "--model.ffn-width INT d_ff (default: 11)" in words
    assert "--decoding.beam INT hypotheses kept; 1 is greedy (default: 2)" in words
    assert "--data.train [STR [STR ...]] files of the training pairs (default: train.a train.b)" in words


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ("", ["--workdir"]),
        ("--workdir", ["--workdir", "Missing value"]),
        ("--workdir x --model.num_head 2", ["--model.num_head", "Perhaps you meant: --model.num-heads"]),
        ("--workdir x --model.num_heads 5", ["num_heads=5 does not divide width=6; choose others, or set head_width"]),
        ("--workdir x --model.dropout much", ["--model.dropout", "'much'"]),
        ("--workdir x --model.norm before", ["--model.norm", "'before'", "'post', 'pre'"]),
        ("--workdir x --training.epochs 3", ["steps=3, epochs=3: give one of the two"]),
        ("--workdir x --mesh.tensor 2", ["mesh.tensor=2 does not divide model.num_heads=3"]),
        ("--workdir x --model.encoder_layers 0", ["a model of objective.kind='translation' has an encoder"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_mistakes(flags, parts, encoding, experiment_file, refused, launched, monkeypatch):
    # The box that tyro draws around a mistake has other characters where the output is not Unicode.
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    refused(["train", experiment_file, *flags.split()], *parts)
    assert not launched


def test_mistakes_in_the_file_argument(experiment_file, refused):
    refused(["train"], "the experiment file comes first: transformer-jax train FILE --workdir DIR")
    refused(["train", "--workdir", "x", experiment_file], "the experiment file comes first")
    refused(["train", experiment_file.with_name("reversed_word.py")], "did you mean", experiment_file)


def test_another_experiment(experiment_file, trained, capfd):
    assert (
        main(["train", str(experiment_file), "--workdir", str(trained), "--batch.rows", "8", "--model.dropout", "0.25"])
        == 2
    )
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {trained}: holds a run of another experiment")
    assert error.endswith("model.dropout: 0.1 -> 0.25")
