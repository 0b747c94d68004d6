"""The debug variant of every experiment trains, to its end."""

import dataclasses
import functools
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from transformer_jax.config import (
    Denoising,
    EvaluationConfig,
    Experiment,
    MaskedLanguageModel,
    ModelConfig,
    PlainText,
    SpanCorruption,
    TokenizerConfig,
    TrainingConfig,
    Translation,
    debug_variant,
)
from transformer_jax.data.batches import examples_of
from transformer_jax.data.sources import load_pairs
from transformer_jax.data.tokenizer import train_tokenizers
from transformer_jax.runs import RunFolder, load_experiment
from transformer_jax.training.loop import train

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.py"))
SIZES = {"encoder_layers", "decoder_layers", "width", "num_heads", "kv_heads", "head_width", "ffn_width", "vocab_size"}
SIZES |= {"source_vocab_size", "max_positions", "pad_id", "start_id", "classes", "lora_rank"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run folder of an experiment, on one device; those with the same debug variant share one."""
    device = jax.devices()[:1]

    @functools.cache
    def run(experiment: Experiment) -> RunFolder:
        folder = tmp_path_factory.mktemp("run")
        assert train(experiment, folder) == 0
        return RunFolder(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: device)
        yield run


def lines_of(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def quiet(experiment: Experiment) -> Experiment:
    """One translates on the way, too; all that translate do so at their end."""
    evaluation = dataclasses.replace(experiment.evaluation, translations=0, metric="loss")
    return dataclasses.replace(experiment, evaluation=evaluation)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_trains_three_steps_and_is_measured(file: Path, trained):
    small = debug_variant(load_experiment(file))
    folder = trained(small if file.stem == "numerals" else quiet(small))
    lines = lines_of(folder)
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    results = json.loads(folder.results.read_text())
    assert (results["step"], results["split"]) == (3, "test")
    assert not [line for line in lines if line.get("train/skipped_steps")]


def test_the_command_line_trains_it_from_start_to_end(trained, tmp_path: Path):
    file = "experiments/multi30k_en_de.py"  # whose own data is not here
    flags = ["--debug", "--evaluation.translations", "0", "--evaluation.metric", "loss"]
    command = [sys.executable, "-m", "transformer_jax.cli.main", "train", file, "--workdir", str(tmp_path / "run")]
    subprocess.run([*command, *flags], check=True, cwd=ROOT)
    run, expected = RunFolder(tmp_path / "run"), trained(quiet(debug_variant(load_experiment(ROOT / file))))
    assert run.config.read_text() == expected.config.read_text()
    for line, other in zip(lines_of(run), lines_of(expected), strict=True):
        assert line.keys() == other.keys()
        for name in line.keys() & {"train/loss", "validation/loss"}:
            assert line[name] == pytest.approx(other[name], rel=1e-5)  # one of eight devices has other last bits
    assert json.loads(run.results.read_text()).keys() == json.loads(expected.results.read_text()).keys()
    assert run.curves.exists()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_only_sizes_and_data_are_others(file: Path):
    whole = load_experiment(file)
    small = debug_variant(whole)
    for field in dataclasses.fields(ModelConfig):
        if field.name not in SIZES:
            assert getattr(small.model, field.name) == getattr(whole.model, field.name)
    kinds = [(one.objective.kind, one.optimizer, one.schedule.kind, one.decoding.beam) for one in (small, whole)]
    assert kinds[0] == kinds[1]
    assert (small.model.encoder_layers > 0, small.model.decoder_layers > 0) == (
        whole.model.encoder_layers > 0,
        whole.model.decoder_layers > 0,
    )


@pytest.mark.parametrize(
    "objective",
    [SpanCorruption(share=0.95, length=1.0), Denoising(), MaskedLanguageModel(share=0.9), Translation()],
    ids=lambda objective: objective.kind,
)
def test_its_tokenizer_has_what_the_objective_needs(objective, tmp_path):
    """Also where that of the experiment would have come with what it starts from."""
    halves = {"decoder_layers": 0} if objective.kind == "masked" else {}
    tokenizer = TokenizerConfig(algorithm="unigram", character_coverage=0.9)
    data, model = PlainText(train="no.txt"), ModelConfig(vocab_size=9_001, **halves)
    whole = Experiment(
        data=data,
        objective=objective,
        init_from="no/run",
        tokenizer=tokenizer,
        model=model,
        training=TrainingConfig(steps=7),
        evaluation=EvaluationConfig(metric="loss"),
    )
    small = debug_variant(whole)
    pairs = load_pairs(small.data, "train")
    tokenizers = train_tokenizers(small.tokenizer, small.model, pairs.sources or [], pairs.targets)
    assert tokenizers.target.vocab_size == small.model.vocab_size
    corpus = examples_of(pairs, objective, tokenizers, small.batch, 3, tmp_path)
    assert len(corpus.draw(0, np.arange(7))) == 7


def test_all_have_one_set_of_shapes():
    variants = [debug_variant(load_experiment(file)) for file in FILES]
    shapes = {(one.batch, one.model.width, one.model.ffn_width, one.model.num_heads) for one in variants}
    assert len(shapes) == 1
