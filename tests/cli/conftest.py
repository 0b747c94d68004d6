"""A run folder made once for all tests of it."""

import dataclasses
import functools
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from reversed_words import write_pairs

from transformer_jax import runs
from transformer_jax.cli.main import main
from transformer_jax.config import (
    CausalLanguageModel,
    Classification,
    ModelConfig,
    PlainText,
    TokenizerConfig,
    TsvFiles,
)
from transformer_jax.data.tokenizer import train_tokenizers
from transformer_jax.initialisation import init_parameters
from transformer_jax.runs import load_experiment
from transformer_jax.training import data as datasets
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.translation import Translator

EXPERIMENT = """
from transformer_jax.config import *

def get_config():
    return Experiment(
        data=TextFiles(dir={dir!r}, train=("train.a", "train.b"), validation=("held.a", "held.b")),
        batch=BatchConfig(rows=5, source_length=17, target_length=19),
        model=ModelConfig(encoder_layers=1, decoder_layers=1, width=6, num_heads=3, ffn_width=11, vocab_size=29),
        schedule=Schedule(kind="constant", peak=0.1, warmup_steps=0),
        training=TrainingConfig(steps=3),
        decoding=DecodingConfig(beam=2, extra_length=5),
    )
"""


@pytest.fixture(scope="session")
def spawn():
    """Starts Python as a process of its own, on one device, with pipes from its standard output and error."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return functools.partial(
        subprocess.Popen,
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def command():
    """The beginning of every command line."""
    return [sys.executable, "-m", "transformer_jax.cli.main"]


@pytest.fixture(scope="session")
def experiment_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    write_pairs(folder, "train", 41, seed=1)
    write_pairs(folder, "held", 5, seed=2)
    file = folder / "reversed_words.py"
    file.write_text(EXPERIMENT.format(dir=str(folder)))
    return file


def fresh_run(path, experiment):
    """A run with checkpoints at step 2, of nothing but zeros, and 3, of fresh parameters."""
    folder = runs.start(path, experiment)
    splits = datasets.load_splits(experiment)
    tokenizers = datasets.make_tokenizers(experiment, splits)
    tokenizers.save(folder.tokenizer)
    digests = {"validation data": splits.validation.digest, "tokenizer": tokenizers.digest}
    runs.record_session(folder, experiment, platform_name="cpu", devices=["a device"], digests=digests)
    fresh = init_parameters(experiment.model, jax.random.key(5))
    with Checkpoints(folder.checkpoints) as checkpoints:
        checkpoints.save(2, {"parameters": jax.tree.map(jnp.zeros_like, fresh)}, {})
        checkpoints.save(3, {"parameters": fresh}, {})
        checkpoints.wait()
    return path


@pytest.fixture(scope="session")
def trained(experiment_file, tmp_path_factory):
    """A run, not to be written to."""
    return fresh_run(tmp_path_factory.mktemp("runs") / "trained", load_experiment(experiment_file))


@pytest.fixture(scope="session")
def language_model(experiment_file, tmp_path_factory):
    """A run of a decoder alone, on the sources; likewise."""
    whole = load_experiment(experiment_file)
    experiment = dataclasses.replace(
        whole,
        data=PlainText(dir=whole.data.dir, train="train.a", validation="held.a"),
        objective=CausalLanguageModel(),
        model=dataclasses.replace(whole.model, encoder_layers=0),
    )
    return fresh_run(tmp_path_factory.mktemp("runs") / "language_model", experiment)


@pytest.fixture(scope="session")
def classifier(experiment_file, tmp_path_factory):
    """A run of a classifier of words by their first letter; likewise."""
    whole, folder = load_experiment(experiment_file), tmp_path_factory.mktemp("labelled")
    for split in ("train", "held"):
        words = (Path(whole.data.dir) / f"{split}.a").read_text().splitlines()
        (folder / f"{split}.tsv").write_text("".join(f"{line}\t{line[0]}\n" for line in words))
    experiment = dataclasses.replace(
        whole,
        data=TsvFiles(dir=str(folder), validation="held.tsv"),
        objective=Classification(labels=tuple("abcd")),
        model=dataclasses.replace(whole.model, decoder_layers=0, classes=4),
    )
    return fresh_run(tmp_path_factory.mktemp("runs") / "classifier", experiment)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run, which a test may change."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="session")
def foreign():
    """Tokenizers of the same size as those of the run, trained on other text."""
    model, texts = ModelConfig(vocab_size=29), ["efgh fghe ghef hefg efgh"]
    return train_tokenizers(TokenizerConfig(), model, texts, texts)


@pytest.fixture
def refused(capfd):
    """Runs the command line within, and requires exit code 2 and one line on standard error that holds all parts."""

    def check(arguments, *parts):
        capfd.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        for part in parts:
            assert str(part) in lines[0]

    return check


@pytest.fixture
def piped(monkeypatch, capfdbinary):
    """Runs the command line with bytes on standard input; returns exit code, bytes out, and lines of errors."""

    def run(arguments, content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        capfdbinary.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode().splitlines()

    return run


@pytest.fixture(scope="session")
def translators():
    """Translators, each made once: they keep what they have compiled."""
    return {}


@pytest.fixture
def kept(translators, monkeypatch):
    """Translators that were made are used again."""
    make = Translator.from_run

    def from_run(paths, **flags):
        key = (tuple(paths), *sorted((name, str(value)) for name, value in flags.items()))
        if key not in translators:
            translators[key] = make(paths, **flags)
        return translators[key]

    monkeypatch.setattr(Translator, "from_run", from_run)
