"""Filters in a run: of its training pairs alone, on record in its folder, part of what the run is."""

import json
from dataclasses import replace

import pytest
import small_runs

from transformer_jax import runs
from transformer_jax.config import FilterConfig, identity_difference
from transformer_jax.data.sources import Pairs
from transformer_jax.errors import InputError
from transformer_jax.sharding import data_mesh
from transformer_jax.training import data

NAMES = ("train.source", "train.target")


@pytest.fixture
def experiment(words):
    return small_runs.experiment(replace(words, validation=NAMES, test=NAMES), filters=FilterConfig(min_length=2))


def test_only_training_pairs_are_filtered_and_the_run_is_of_what_is_left(experiment, tmp_path, capsys):
    folder = runs.start(tmp_path / "run", experiment)
    loaded = data.load(experiment, folder, data_mesh(1))
    left = [words for words in small_runs.WORDS if " " in words]
    assert list(loaded.splits.train.sources) == left
    assert len(loaded.splits.validation) == len(loaded.splits.test) == 13
    assert loaded.digests()["train data"] == Pairs(left, [words[::-1] for words in left]).digest
    said = capsys.readouterr().err
    assert "filters: 11 of 13 pairs kept; 2 with a side below 2 words" in said
    assert "training: 11 of 11 pairs" in said
    report = json.loads(folder.filters.read_text())
    assert report["dropped"] == {"with a side below 2 words": {"count": 2, "examples": [["c", "c"], ["d", "d"]]}}

    # A try that never trained is forgotten, with its report.
    without = replace(experiment, filters=FilterConfig())
    folder = runs.start(tmp_path / "run", without)
    loaded = data.load(without, folder, data_mesh(1))
    assert len(loaded.splits.train) == 13
    assert not folder.filters.exists()
    assert "filters" not in capsys.readouterr().err
    assert identity_difference(without, experiment) == ["filters.min_length: None -> 2"]


def test_filters_that_leave_nothing_are_refused_with_their_counts(experiment):
    config = FilterConfig(min_length=5)
    with pytest.raises(InputError, match=r"data\.train: no pair passes .*: 0 of 13 pairs kept; 13 with a side below 5"):
        data.load_splits(replace(experiment, filters=config))
