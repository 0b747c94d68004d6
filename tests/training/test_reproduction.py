"""A run trained again is the same to the bit or the first difference is told; another's data and tokenizer are refused,
here and when a run goes on.
"""

import dataclasses
import json
import math
import shutil

import jax
import pytest
from reversed_words import write_pairs

from transformer_jax import runs
from transformer_jax.config import (
    BatchConfig,
    CheckpointConfig,
    EvaluationConfig,
    Experiment,
    LoggingConfig,
    MeshConfig,
    ModelConfig,
    Numerals,
    Schedule,
    TextFiles,
    TrainingConfig,
)
from transformer_jax.data.tokenizer import train_tokenizers
from transformer_jax.errors import FAILED_CHECK, InputError
from transformer_jax.runs import RunFolder
from transformer_jax.training import data as datasets
from transformer_jax.training import loop, manifest, reproduction
from transformer_jax.training.metrics import read
from transformer_jax.training.moved import Moved
from transformer_jax.training.reproduction import reproduce

STEPS = 7


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Programs compiled for one training serve the next."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder, "train", 71, seed=1)
    write_pairs(folder, "held", 5, seed=2)
    return Experiment(
        data=TextFiles(dir=str(folder), train=("train.a", "train.b"), validation=("held.a", "held.b")),
        batch=BatchConfig(rows=8, source_length=17, target_length=19),
        model=ModelConfig(encoder_layers=1, decoder_layers=1, width=6, num_heads=3, ffn_width=11, vocab_size=29),
        schedule=Schedule(kind="cosine", peak=1e-2, warmup_steps=2),
        training=TrainingConfig(steps=STEPS),
        evaluation=EvaluationConfig(every=3, translations=0),
        checkpoints=CheckpointConfig(every=2, newest=3),
        logging=LoggingConfig(every=2, tensorboard=False),
    )


@pytest.fixture(scope="module")
def halfway(experiment, compiled_once, tmp_path_factory):
    """A run stopped behind its step 5."""
    path = tmp_path_factory.mktemp("runs") / "halfway"
    assert loop.train(experiment, path, until=5) == 0
    return path


@pytest.fixture(scope="module")
def trained(experiment, halfway):
    """The same run, gone on up to its last step; not to be written to."""
    path = shutil.copytree(halfway, halfway.with_name("trained"))
    assert loop.train(experiment, path, until=STEPS) == 0
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run, which a test may change."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def data(experiment, tmp_path):
    """A copy of its data, likewise."""
    return shutil.copytree(experiment.data.dir, tmp_path / "data")


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change_sessions(run, **values):
    """Changes the record of the sessions of a run."""
    sessions = [session | values for session in runs.read_sessions(RunFolder(run))]
    RunFolder(run).environment.write_text(json.dumps(sessions))


def foreign_tokenizer(run, experiment):
    """Puts a tokenizer of the same size into a run, trained on other text."""
    texts = ["efgh fghe ghef hefg efgh"]
    train_tokenizers(experiment.tokenizer, experiment.model, texts, texts).save(RunFolder(run).tokenizer)


def steps_of(run):
    return [line["step"] for line in read(RunFolder(run).metrics)]


def test_a_step_to_stop_after_is_saved_and_nothing_is_reported(halfway):
    assert steps_of(halfway) == [2, 3, 4]  # as if it had not stopped: evaluated behind 3, means behind 2 and 4
    assert list(reproduction._manifests(RunFolder(halfway))) == [2, 3, 4, 5]  # three of the schedule, and the last
    assert not RunFolder(halfway).results.exists()


def test_the_same_bits(run, data):
    """Of a run in two sessions, trained again in one."""
    outcome = reproduce(run, places=Moved(data=str(data)))
    assert outcome.output == run.with_name("run-reproduced")
    assert (outcome.code, outcome.difference) == (0, None)
    assert steps_of(run) == [2, 3, 4, 6, 6, 7, 7]
    assert RunFolder(outcome.output).metrics.read_bytes() == RunFolder(run).metrics.read_bytes()
    assert outcome.leaves > 20
    told = f"the same to the bit: 7 lines of metrics, {outcome.leaves} leaves of the checkpoint of step 7"
    assert str(outcome) == told


class TestCompared:
    """A training that is the same to the bit, for it is a copy; the run is another one."""

    @pytest.fixture(autouse=True)
    def copied(self, trained, halfway, monkeypatch):
        def train(experiment, workdir, *, until):
            RunFolder(workdir).metrics.unlink()
            shutil.copytree(trained if until == STEPS else halfway, workdir, dirs_exist_ok=True)
            return 0

        monkeypatch.setattr(loop, "train_among", train)

    def test_the_first_metric_that_differs_with_both_environments(self, run):
        loss = read(RunFolder(run).metrics)[2]["train/loss"]
        other = math.nextafter(loss, 10)
        change(RunFolder(run).metrics, f'"train/loss": {loss!r}', f'"train/loss": {other!r}')
        session = runs.read_sessions(RunFolder(run))[0]
        versions = session["versions"] | {"jax": "0.9"}
        change_sessions(run, devices=["gpu:0", "gpu:1"], platform="gpu", commit="abc", versions=versions)
        sessions = runs.read_sessions(RunFolder(run))
        RunFolder(run).environment.write_text(json.dumps([*sessions, sessions[0] | {"commit": "def"}]))

        outcome = reproduce(run)
        assert (outcome.code, outcome.difference) == (FAILED_CHECK, (4, "train/loss", repr(other), repr(loss)))
        first, header, *rows = str(outcome).splitlines()
        assert first == f"2 lines of metrics are the same; then step 4, train/loss: {other} in the run, {loss} here"
        assert header.split() == ["session", "1,", "2", "session", "3", "here"]
        by_name = {row.lstrip("* ").split()[0]: row for row in rows}
        assert "0.9" in by_name["jax"]
        assert "2, first gpu:0" in by_name["devices"]
        assert "8, first cpu:0 (cpu)" in by_name["devices"]
        starred = {name for name, row in by_name.items() if row.startswith("*")}
        assert starred == {"jax", "commit", "platform", "devices"}
        assert {"sentencepiece", "processor", "XLA_FLAGS", "mesh.fsdp", "training.remat"} < set(by_name)
        assert not {"data.dir", "processes.index"} & set(by_name)

    def test_a_parameter_that_differs_where_no_metric_does(self, run):
        place = RunFolder(run).checkpoints / f"{STEPS}"
        contents = manifest.read(place)
        (path, leaf), *_ = contents.leaves["parameters"].items()
        dtype, shape, fingerprint = leaf
        leaf[2] = "0123456789abcdef"
        manifest.write(place, contents)
        outcome = reproduce(run)
        assert (outcome.code, outcome.checkpoint, outcome.lines) == (FAILED_CHECK, STEPS, 7)
        told = (f"checkpoint, parameters{path}", f"{dtype} {shape} {leaf[2]}", f"{dtype} {shape} {fingerprint}")
        assert outcome.difference[1:] == told
        assert "\n" in str(outcome)

    def test_up_to_a_step(self, run):
        outcome = reproduce(run, until=5)
        assert (outcome.code, outcome.lines, outcome.checkpoint) == (0, 3, 4)
        for step in ("3", "4"):
            shutil.rmtree(RunFolder(run).checkpoints / step)
        outcome = reproduce(run, run / "again", until=5)
        assert (outcome.code, outcome.checkpoint) == (0, None)
        assert str(outcome) == "the same to the bit: 3 lines of metrics"

    def test_of_a_damaged_checkpoint_of_the_run_the_one_before_it_is_compared(self, run):
        file = RunFolder(run).checkpoints / f"{STEPS}" / manifest.NAME
        file.write_text("{")
        outcome = reproduce(run)
        assert (outcome.code, outcome.checkpoint) == (0, STEPS - 1)
        assert file.read_text() == "{"  # the run is read only

    def test_what_a_signal_cuts_short_is_compared_as_far_as_it_came(self, run, halfway, monkeypatch):
        def train(experiment, workdir, *, until):
            shutil.copytree(halfway, workdir, dirs_exist_ok=True)
            return 143

        monkeypatch.setattr(loop, "train_among", train)
        outcome = reproduce(run)
        assert (outcome.code, outcome.difference) == (143, None)
        assert str(outcome).startswith("the same to the bit, up to where a signal stopped it: 3 lines of metrics, ")
        assert outcome.checkpoint == 4
        change(RunFolder(run).metrics, '"step": 4, ', '"step": 4, "extra": 0, ')
        assert reproduce(run, run / "again").code == FAILED_CHECK  # rather than the signal's


class TestRefused:
    @pytest.fixture(autouse=True)
    def nothing_trains(self, monkeypatch):
        monkeypatch.setattr(loop, "train_among", None)

    def check(self, run, *parts, **arguments):
        output = run.with_name("run-reproduced")
        there = output.exists()
        with pytest.raises(InputError) as caught:
            reproduce(run, **arguments)
        assert "\n" not in str(caught.value)
        for part in parts:
            assert str(part) in str(caught.value)
        assert output.exists() == there  # the next try finds a free place

    @pytest.mark.parametrize(("file", "split"), [("train.b", "train"), ("held.a", "validation")])
    def test_an_edited_file_of_the_data(self, file, split, run, data):
        change(data / file, "a", "b")
        recorded = runs.recorded_digests(RunFolder(run))[f"{split} data"]
        self.check(run, data / file, f"not the {split} data of the run", recorded, places=Moved(data=str(data)))

    def test_missing_data(self, run, tmp_path):
        self.check(
            run, tmp_path / "none" / "train.a", "no such file", "--data.dir", places=Moved(data=str(tmp_path / "none"))
        )

    def test_another_tokenizer(self, run, experiment):
        foreign_tokenizer(run, experiment)
        self.check(run, RunFolder(run).tokenizer / "joint.model", "not the tokenizer that the run was trained with")

    def test_a_sentencepiece_that_makes_another_tokenizer(self, run, experiment, monkeypatch):
        versions = runs.read_sessions(RunFolder(run))[0]["versions"]
        change_sessions(run, versions=versions | {"sentencepiece": "0.1.9"})
        other = dataclasses.replace(experiment.model, vocab_size=23)
        monkeypatch.setattr(
            datasets, "train_tokenizers", lambda config, model, *texts: train_tokenizers(config, other, *texts)
        )
        here = versions["sentencepiece"]
        self.check(run, f"sentencepiece {here} makes another tokenizer here than 0.1.9 did", "install 0.1.9")

    def test_a_place_that_is_taken(self, run):
        (run.with_name("run-reproduced") / "thesis").mkdir(parents=True)
        self.check(run, run.with_name("run-reproduced"), "exists and is not empty; choose another --output")

    @pytest.mark.parametrize("until", [0, 1, 8])
    def test_a_step_with_nothing_to_compare(self, until, run):
        self.check(run, f"--until {until}: the run can be compared from step 2 on, and up to step 7", until=until)

    def test_what_is_no_run_or_has_not_come_far_enough(self, run, tmp_path):
        self.check(tmp_path / "none", "no such run folder")
        RunFolder(run).average.touch()
        self.check(run, "an average of checkpoints")
        RunFolder(run).average.unlink()
        shutil.rmtree(RunFolder(run).checkpoints)
        RunFolder(run).metrics.unlink()
        self.check(run, "neither metrics nor a checkpoint")
        RunFolder(run).environment.unlink()
        self.check(run, RunFolder(run).environment, "missing")

    def test_data_that_is_in_no_folder(self, tmp_path):
        runs.start(tmp_path / "run", Experiment(data=Numerals(), training=TrainingConfig(steps=3)))
        self.check(tmp_path / "run", "--data.dir x: data of kind numerals is in no folder", places=Moved(data="x"))


@pytest.mark.parametrize(
    ("recorded", "here"),
    [
        (MeshConfig(fsdp=2), MeshConfig(fsdp=2)),
        (MeshConfig(data=2, fsdp=2), MeshConfig(data=-1, fsdp=2)),
        (MeshConfig(data=2, fsdp=5), MeshConfig()),
        (MeshConfig(data=-1, fsdp=4), MeshConfig()),  # does not divide the width
    ],
)
def test_the_mesh_on_another_machine(recorded, here, experiment, capfd):
    experiment = dataclasses.replace(experiment, mesh=recorded)
    session = {"devices": ["one", "two"], "platform": "tpu"}
    assert reproduction._mesh_here(experiment, session) == here
    assert capfd.readouterr().err.startswith("devices here: 8 (cpu), of the run: 2 (tpu); ")


class TestResume:
    """Data changed under a checkpoint: the run does not go on, and says what changed, before anything is compiled."""

    @pytest.fixture(autouse=True)
    def nothing_is_compiled(self, monkeypatch):
        monkeypatch.setattr(loop, "Trainer", None)

    def check(self, run, experiment, *parts):
        def contents():
            return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and ".lock" not in path.name}

        before = contents()
        with pytest.raises(InputError) as caught:
            loop.train(experiment, run)
        assert "\n" not in str(caught.value)
        for part in (run, *parts):
            assert str(part) in str(caught.value)
        assert contents() == before

    @pytest.mark.parametrize(("file", "split"), [("train.b", "train"), ("held.a", "validation")])
    def test_an_edited_file_of_the_data(self, file, split, run, experiment, data):
        change(data / file, "a", "b")
        moved = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, dir=str(data)))
        recorded = runs.recorded_digests(RunFolder(run))[f"{split} data"]
        self.check(run, moved, "not what the run was started with", f"{split} data: {recorded} -> ")

    def test_a_split_that_is_left_out(self, run, experiment):
        without = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, validation=None))
        self.check(run, without, "not what the run was started with", "validation data: ", " -> none")

    def test_another_tokenizer(self, run, experiment):
        recorded = runs.recorded_digests(RunFolder(run))["tokenizer"]
        foreign_tokenizer(run, experiment)
        self.check(run, experiment, "not what the run was started with", f"tokenizer: {recorded} -> ")

    @pytest.mark.parametrize(
        ("part", "name", "value", "told"),
        [
            ("model", "vocab_size", 31, "model.vocab_size: 29 -> 31"),
            ("batch", "source_length", 23, "batch.source_length: 17 -> 23"),
            ("batch", "target_length", 29, "batch.target_length: 19 -> 29"),
            ("batch", "rows", 16, "batch.rows: 8 -> 16"),
            ("tokenizer", "algorithm", "unigram", "tokenizer.algorithm: bpe -> unigram"),
        ],
    )
    def test_another_vocabulary_or_packing(self, part, name, value, told, run, experiment):
        other = dataclasses.replace(getattr(experiment, part), **{name: value})
        self.check(run, dataclasses.replace(experiment, **{part: other}), "holds a run of another experiment", told)
