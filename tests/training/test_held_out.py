"""Pairs for validation and test that come from elsewhere than those of training."""

from dataclasses import replace

import pytest

from transformer_jax.config import Experiment, TextFiles, TrainingConfig, TsvFiles
from transformer_jax.data.sources import load_pairs
from transformer_jax.errors import InputError
from transformer_jax.training.data import load_splits


@pytest.fixture
def experiment(tmp_path):
    """Of three pairs for training with one for validation, and held out from them two and one in a file each."""
    for name, count in {"train": 3, "data": 1, "validation": 2, "test": 1}.items():
        for side in ("a", "b"):
            (tmp_path / f"{name}.{side}").write_text(f"{name} {side}\n" * count)
        (tmp_path / f"{name}.tsv").write_text(f"{name} a\t{name} b\n" * count)
    data = TextFiles(dir=str(tmp_path), train=("train.a", "train.b"), validation=("data.a", "data.b"))
    held_out = TsvFiles(dir=str(tmp_path), train="none", validation="validation.tsv", test="test.tsv")
    return Experiment(data=data, held_out=held_out, training=TrainingConfig(steps=1))


def test_they_are_those_of_held_out_alone(experiment):
    splits = load_splits(experiment)
    assert [len(pairs) for pairs in (splits.train, splits.validation, splits.test)] == [3, 2, 1]
    assert splits.validation.sources == ["validation a"] * 2
    assert splits.digests()["test data"] == load_pairs(experiment.held_out, "test").digest
    splits = load_splits(replace(experiment, held_out=replace(experiment.held_out, validation=None)))
    assert splits.validation is None


def test_mistakes_name_it(experiment, tmp_path):
    (tmp_path / "test.tsv").write_text("")
    with pytest.raises(InputError, match=r"^held_out\.test: there are no pairs in it, in .*test\.tsv"):
        load_splits(experiment)
    stopping = replace(experiment.training, patience=1)
    held_out = replace(experiment.held_out, validation=None)
    with pytest.raises(InputError, match=r"^held_out\.validation: early stopping"):
        load_splits(replace(experiment, training=stopping, held_out=held_out))
