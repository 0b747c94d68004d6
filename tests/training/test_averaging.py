"""The mean of checkpoints: by hand, of the right ones, into a folder that can be decoded and not trained on."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import runs, sharding
from transformer_jax.config import (
    Experiment,
    ModelConfig,
    Numerals,
    Schedule,
    ScheduleFree,
    TokenizerConfig,
    TrainingConfig,
    to_json,
)
from transformer_jax.data.tokenizer import train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.initialisation import abstract_parameters
from transformer_jax.runs import RunFolder
from transformer_jax.training.averaging import average, mean_of
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.metrics import score_of
from transformer_jax.translation import Translator, read_parameters

MODEL = ModelConfig(encoder_layers=1, decoder_layers=1, width=6, num_heads=3, ffn_width=7, vocab_size=31)
EXPERIMENT = Experiment(data=Numerals(), model=MODEL, training=TrainingConfig(steps=11))


@pytest.fixture(scope="module")
def mesh():
    return sharding.data_mesh()


@pytest.fixture(scope="module")
def abstract(mesh):
    return abstract_parameters(MODEL, mesh)


def tokenizers(last_word="kappa"):
    text = ["alpha beta gamma", "delta epsilon zeta", "eta theta iota", last_word]
    return train_tokenizers(TokenizerConfig(), MODEL, text, text)


@pytest.fixture(scope="module")
def make_run(abstract):
    """Makes a run folder of {step: (value of every parameter, loss on validation or None)}."""
    usual = tokenizers()

    def make(path, checkpoints, *, experiment=EXPERIMENT, item="parameters", tokenizers=usual):
        folder = RunFolder(path)
        folder.path.mkdir()
        folder.config.write_text(to_json(experiment))
        tokenizers.save(folder.tokenizer)
        with Checkpoints(folder.checkpoints, score=score_of("loss")) as saved:
            for step, (value, loss) in checkpoints.items():
                items = {item: constant(abstract, value)}
                if item != "parameters":
                    items["parameters"] = constant(abstract, -1.0)  # what is not evaluated must not be averaged
                saved.save(step, items, {}, None if loss is None else {"validation/loss": loss})
            saved.wait()
        return path

    return make


def constant(abstract, value):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), abstract)


@pytest.fixture
def run(make_run, tmp_path):
    return make_run(tmp_path / "run", {2: (2.0, 5.0), 3: (3.0, 1.0), 5: (7.0, None), 7: (13.0, 3.0)})


def averaged_value(path, mesh):
    """The one value of all parameters of a folder, and the step."""
    params, step = read_parameters(RunFolder(path), runs.open_run(path), mesh)
    (value,) = {float(value) for leaf in jax.tree.leaves(params) for value in np.unique(leaf)}
    return value, step


def members(path):
    return [(one["run"], one["step"]) for one in json.loads(RunFolder(path).average.read_text())["checkpoints"]]


class TestMean:
    def test_is_the_mean_of_each_leaf(self):
        trees = [{"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([4.0, 6.0])}, {"a": jnp.array([7.0, 1.0])}]
        mean = mean_of(iter(trees))["a"]
        assert mean.dtype == np.float32
        np.testing.assert_array_equal(mean, [4.0, 3.0])

    def test_sums_wider_than_float32(self):
        big = {"a": jnp.array([2.0**24], jnp.float32)}
        one = {"a": jnp.array([1.0], jnp.float32)}
        # In float32 each 1 would be lost beside 2^24: the mean of five would be 2^24 / 5.
        np.testing.assert_array_equal(mean_of([big, one, one, one, one])["a"], [np.float32((2**24 + 4) / 5)])


class TestAverage:
    def test_newest(self, run, tmp_path, mesh):
        average([run], tmp_path / "out", by="newest", count=2)
        assert averaged_value(tmp_path / "out", mesh) == (10.0, 7)  # (7 + 13) / 2

    def test_best_goes_by_the_metric(self, run, tmp_path, mesh):
        average([run], tmp_path / "out", by="best", count=2)
        assert averaged_value(tmp_path / "out", mesh) == (8.0, 7)  # losses 1 and 3: (3 + 13) / 2

    def test_of_several_runs(self, run, make_run, tmp_path, mesh):
        other = make_run(tmp_path / "other", {11: (4.0, None)})
        returned = average([run, other], tmp_path / "out", by="newest", count=1)
        assert averaged_value(tmp_path / "out", mesh) == (8.5, 11)  # (13 + 4) / 2
        expected = [(str(run), 7), (str(other), 11)]
        assert [(member.run, member.step) for member in returned] == expected
        assert members(tmp_path / "out") == expected

    @pytest.mark.parametrize(
        "fields",
        [
            {"training": TrainingConfig(steps=11, average_decay=0.5)},
            {"optimizer": ScheduleFree(), "schedule": Schedule(kind="constant")},
        ],
        ids=["moving", "schedule-free"],
    )
    def test_takes_what_is_evaluated(self, fields, make_run, tmp_path, mesh):
        moving = dataclasses.replace(EXPERIMENT, **fields)
        run = make_run(tmp_path / "run", {2: (3.0, None), 5: (5.0, None)}, experiment=moving, item="average")
        average([run], tmp_path / "out", by="newest", count=2)
        assert averaged_value(tmp_path / "out", mesh) == (4.0, 5)

    def test_says_where_it_comes_from(self, run, tmp_path):
        average([run], tmp_path / "out", by="best", count=3)
        record = json.loads((tmp_path / "out" / "average.json").read_text())
        assert record.keys() == {"version", "by", "metric", "checkpoints"}
        assert (record["by"], record["metric"]) == ("best", "loss")
        assert members(tmp_path / "out") == [(str(run), step) for step in (2, 3, 7)]

    def test_opens_as_a_translator(self, run, tmp_path):
        average([run], tmp_path / "out", by="newest", count=2)
        assert Translator.from_run(tmp_path / "out").translate([""]) == [""]

    def test_can_be_averaged_again(self, run, tmp_path, mesh):
        average([run], tmp_path / "once", by="newest", count=2)
        average([run, tmp_path / "once"], tmp_path / "twice", by="newest", count=1)
        assert averaged_value(tmp_path / "twice", mesh) == (11.5, 7)  # (13 + 10) / 2

    def test_cannot_be_trained_on(self, run, tmp_path):
        average([run], tmp_path / "out", by="newest", count=1)
        before = sorted((tmp_path / "out").iterdir())
        with pytest.raises(InputError, match=r"out: holds an average of checkpoints, which cannot be trained on"):
            runs.start(tmp_path / "out", EXPERIMENT)
        assert sorted((tmp_path / "out").iterdir()) == before


class TestRefusals:
    def refused(self, pattern, *arguments, **flags):
        with pytest.raises(InputError, match=pattern) as caught:
            average(*arguments, **flags)
        assert "\n" not in str(caught.value)

    def test_fewer_checkpoints(self, run, tmp_path):
        self.refused(r"run: 4 checkpoints, fewer than --newest 5", [run], tmp_path / "out", by="newest", count=5)
        self.refused(r"run: 3 evaluated checkpoints, fewer than --best 4", [run], tmp_path / "out", by="best", count=4)
        assert not (tmp_path / "out").exists()

    def test_no_checkpoints(self, run, tmp_path):
        folder = RunFolder(run)
        folder.checkpoints.rename(tmp_path / "elsewhere")
        self.refused("no checkpoints; train first", [run], tmp_path / "out", by="newest", count=1)

    def test_other_models(self, run, make_run, tmp_path):
        deeper = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(MODEL, dropout=0.25, norm="pre"))
        other = make_run(tmp_path / "other", {}, experiment=deeper)
        differences = r"model.norm: post and pre; model.dropout: 0.1 and 0.25"
        self.refused(f"run and .*other .*{differences}", [run, other], tmp_path / "out", by="newest", count=1)

    def test_other_tokenizers(self, run, make_run, tmp_path):
        other = make_run(tmp_path / "other", {}, tokenizers=tokenizers(last_word="lambda"))
        self.refused("not the same tokenizer", [run, other], tmp_path / "out", by="newest", count=1)

    def test_output_in_use(self, run, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("kept")
        self.refused("out: exists and is not empty", [run], tmp_path / "out", by="newest", count=1)
        self.refused("mine: exists", [run], tmp_path / "out" / "mine", by="newest", count=1)
        assert (tmp_path / "out" / "mine").read_text() == "kept"

    def test_nothing_to_average(self, run, tmp_path):
        self.refused("0 runs", [], tmp_path / "out", by="newest", count=1)
        self.refused("0 checkpoints", [run], tmp_path / "out", by="newest", count=0)

    def test_no_run(self, tmp_path):
        self.refused("no such run folder", [tmp_path / "none"], tmp_path / "out", by="newest", count=1)


def test_a_folder_half_made_is_no_run(run, tmp_path, monkeypatch):
    def full_disk(*arguments, **flags):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "save", full_disk)
    with pytest.raises(InputError, match="out: cannot be written: No space left on device"):
        average([run], tmp_path / "out", by="newest", count=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_an_empty_output_folder_is_used(run, tmp_path, mesh):
    (tmp_path / "out").mkdir()
    average([run], tmp_path / "out", by="newest", count=1)
    assert averaged_value(tmp_path / "out", mesh) == (13.0, 7)
