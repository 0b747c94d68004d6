"""Public checkpoints of one half: GPT-2 goes on, RoBERTa learns classes."""

import json

import jax
import numpy as np
import pytest
from whole import write_whole

from transformer_jax.config import (
    BatchConfig,
    CheckpointConfig,
    Classification,
    EvaluationConfig,
    Experiment,
    LoggingConfig,
    MeshConfig,
    ModelConfig,
    Schedule,
    TrainingConfig,
    TsvFiles,
)
from transformer_jax.pretrained import load_pretrained
from transformer_jax.runs import RunFolder, open_run
from transformer_jax.sharding import data_mesh
from transformer_jax.training import initial
from transformer_jax.training.importing import import_checkpoint
from transformer_jax.training.loop import train
from transformer_jax.translation import Generator


def test_a_public_decoder_is_imported_and_goes_on_with_a_text(tmp_path):
    write_whole("gpt2", tmp_path / "gpt2")
    import_checkpoint(tmp_path / "gpt2", tmp_path / "run")
    assert open_run(tmp_path / "run").objective.kind == "causal"
    texts = Generator.from_run(tmp_path / "run").generate(["one two", "", "one"])
    assert [text[: len(begun)] for text, begun in zip(texts, ["one two", "", "one"], strict=True)] == [
        "one two",
        "",
        "one",
    ]
    assert len(set(texts)) == 3


@pytest.fixture
def classifying(tmp_path):
    """A classifier of whether a text has a b, on top of a tiny RoBERTa."""
    write_whole("roberta", tmp_path / "roberta")
    texts = ["a c", "b a", "c", "b", "a a c", "c b", "a", "c c a b"]
    (tmp_path / "train.tsv").write_text("".join(f"{text}\t{'b' in text}\n" for text in texts))
    return Experiment(
        init_from=str(tmp_path / "roberta"),
        data=TsvFiles(dir=str(tmp_path), validation="train.tsv"),
        objective=Classification(labels=("False", "True")),
        batch=BatchConfig(rows=3, source_length=11, target_length=5),
        model=ModelConfig(decoder_layers=0, classes=2, pooling="first", dropout=0.0),
        schedule=Schedule(kind="constant", peak=3e-2, warmup_steps=0),
        training=TrainingConfig(steps=30, label_smoothing=0.0),
        evaluation=EvaluationConfig(every=30),
        checkpoints=CheckpointConfig(every=30),
        logging=LoggingConfig(every=1, tensorboard=False),
        mesh=MeshConfig(data=1),
    )


def test_a_public_encoder_learns_classes(classifying, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda everything=jax.devices(): everything[:1])  # noqa: B008
    public = load_pretrained(classifying.init_from).params
    start = initial.parameters_of(initial.resolved(classifying), data_mesh())
    for own, theirs in zip(jax.tree.leaves(start["encoder"]), jax.tree.leaves(public["encoder"]), strict=True):
        np.testing.assert_array_equal(own, theirs)
    assert "class_head" in start
    assert "output_head" not in start
    assert train(classifying, tmp_path / "run") == 0
    lines = [json.loads(line) for line in RunFolder(tmp_path / "run").metrics.read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.5 * losses[0]
