"""A run over data that goes bad: steps are skipped, the run goes back and passes over them, and at last it gives up."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import small_runs
from real_processes import fingerprints

from transformer_jax.cli.main import main
from transformer_jax.config import CheckpointConfig, LoggingConfig, StabilityConfig, TrainingConfig, to_json
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.errors import DIVERGED, DivergenceError, explain
from transformer_jax.training import loop, metrics
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.observer import Observer

STABILITY = StabilityConfig(max_skipped=2, spike=2.5, max_rollbacks=2)


@pytest.fixture(autouse=True)
def one_device(devices):
    devices(1)


@pytest.fixture
def experiment(words):
    return small_runs.experiment(words, stability=STABILITY)


class Spoiled:
    """Makes batches bad, by where they stand among all batches that a run takes from its data in order."""

    def __init__(self, monkeypatch, nan=(), noise=()):
        self.nan, self.noise, self.real = set(nan), set(noise), Pipeline.batch
        spoiled = self

        def batch(pipeline, epoch, index):
            made = spoiled.real(pipeline, epoch, index)
            return spoiled.spoil(made, sum(map(pipeline.steps_of, range(epoch))) + index)

        monkeypatch.setattr(Pipeline, "batch", batch)

    def spoil(self, batch, number):
        target = batch.target
        if number in self.nan:
            weights = np.array(target.weights)
            weights[0, 0] = np.nan
            target = replace(target, weights=jax.device_put(weights, target.weights.sharding))
        if number in self.noise:  # a token that never comes, everywhere
            targets = np.where(np.asarray(target.targets) > 0, 2, 0).astype(np.int32)
            target = replace(target, targets=jax.device_put(targets, target.targets.sharding))
        return replace(batch, target=target)


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_bad_steps_are_skipped_counted_and_put_on_record_with_their_examples(experiment, tmp_path, monkeypatch, capfd):
    Spoiled(monkeypatch, nan=[2, 5])
    assert loop.train(experiment, tmp_path / "run") == 0
    skipped = lines(tmp_path / "run", "incidents.jsonl")
    assert [(line["step"], line["what"]) for line in skipped] == [(3, "skipped step"), (6, "skipped step")]
    assert all(np.isnan(line["loss"]) for line in skipped)
    assert all(0 <= example < len(small_runs.WORDS) for line in skipped for example in line["examples"])
    assert skipped[0]["examples"] != skipped[1]["examples"]
    logged = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [line["train/skipped_steps"] for line in logged] == [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert all(np.isfinite(line["train/loss"]) for line in logged)
    assert "step 3: skipped: loss nan" in capfd.readouterr().err


def test_after_too_many_the_run_goes_back_and_passes_over_the_data(experiment, tmp_path, monkeypatch, capfd):
    """Steps 7 and 8 are bad: back to the checkpoint of step 4, whose next batch is the ninth."""
    with monkeypatch.context() as spoiling:
        Spoiled(spoiling, nan=[6, 7])
        assert loop.train(experiment, tmp_path / "run") == 0
    assert "step 8: 2 bad steps in a row (loss nan); going back to step 4" in capfd.readouterr().err
    incidents = [(line["step"], line["rollbacks"], line["what"]) for line in lines(tmp_path / "run", "incidents.jsonl")]
    assert incidents == [(7, 0, "skipped step"), (8, 0, "skipped step"), (8, 0, "went back")]
    logged = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in logged] == list(range(1, 13))
    assert sum(line["train/skipped_steps"] for line in logged) == 0

    # The same as if the four batches behind step 4 had never been there.
    following = Pipeline.following

    def without(pipeline, epoch, index):
        position = following(pipeline, epoch, index)
        for _ in range(4 * (sum(map(pipeline.steps_of, range(epoch))) + index == 3)):
            position = following(pipeline, *position)
        return position

    monkeypatch.setattr(Pipeline, "following", without)
    assert loop.train(experiment, tmp_path / "clean") == 0
    assert metrics.read(tmp_path / "clean" / "metrics.jsonl") == logged
    assert fingerprints(tmp_path / "clean") == fingerprints(tmp_path / "run")


def test_a_run_that_stopped_on_the_way_goes_back_to_the_same_bits(experiment, tmp_path, monkeypatch):
    Spoiled(monkeypatch, nan=[6, 7])
    assert loop.train(experiment, tmp_path / "whole") == 0
    advance = Observer.advance

    def dies_once_at(step):
        def advance_or_die(self, at):
            if at == step:
                monkeypatch.setattr(Observer, "advance", advance)
                raise KeyboardInterrupt
            advance(self, at)

        monkeypatch.setattr(Observer, "advance", advance_or_die)

    assert loop.train(experiment, tmp_path / "stopped", until=6) == 0  # saved off the schedule: never gone back to
    for step in (7, 5, 9):  # between the bad steps; after the run has gone back; behind the next checkpoint
        dies_once_at(step)
        with pytest.raises(KeyboardInterrupt):
            loop.train(experiment, tmp_path / "stopped")
    assert loop.train(experiment, tmp_path / "stopped") == 0
    for name in ("metrics.jsonl", "incidents.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert fingerprints(tmp_path / "stopped") == fingerprints(tmp_path / "whole")


def test_before_the_first_checkpoint_the_run_starts_again_behind_the_data(experiment, tmp_path, monkeypatch, capfd):
    Spoiled(monkeypatch, nan=[0, 1])
    assert loop.train(experiment, tmp_path / "run") == 0
    assert "going back to step 0" in capfd.readouterr().err
    assert [line["step"] for line in metrics.read(tmp_path / "run" / "metrics.jsonl")] == list(range(1, 13))


def test_a_run_that_goes_bad_again_and_again_stops_with_a_report(experiment, tmp_path, monkeypatch, capfd):
    Spoiled(monkeypatch, nan=range(4, 100))
    with pytest.raises(
        DivergenceError, match=r"step 6: 2 bad steps in a row .* gone back 2 times; see .*incidents"
    ) as no:
        loop.train(experiment, tmp_path / "run")
    assert explain(no.value) == (f"error: {no.value}", DIVERGED)
    assert [line["what"] for line in lines(tmp_path / "run", "incidents.jsonl")].count("went back") == 2
    assert lines(tmp_path / "run", "incidents.jsonl")[-1]["what"] == "gave up"
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [4]


def test_the_command_line_tells_it_in_one_line_and_by_its_code(experiment, tmp_path, monkeypatch, capfd):
    Spoiled(monkeypatch, nan=range(100))
    file, text = tmp_path / "bad.py", to_json(experiment)
    content = f"from transformer_jax.config import *\ndef get_config():\n    return from_json({text!r})\n"
    file.write_text(content)
    assert main(["train", str(file), "--workdir", str(tmp_path / "run")]) == DIVERGED
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: step 2: 2 bad steps in a row")


@pytest.mark.slow
def test_a_corrupted_batch_is_a_spike_and_clean_data_never_is(experiment, tmp_path, monkeypatch, capfd):
    """A thousand clean steps without an alarm; then one batch of nothing but unknown pieces."""
    many_steps = replace(
        experiment,
        training=TrainingConfig(steps=1_008),
        checkpoints=CheckpointConfig(every=250),
        logging=LoggingConfig(every=24, tensorboard=False),
    )
    Spoiled(monkeypatch, noise=[1_001])
    assert loop.train(many_steps, tmp_path / "run") == 0
    assert "step 1,002: a spike of the loss" in capfd.readouterr().err
    incidents = [(line["step"], line["what"]) for line in lines(tmp_path / "run", "incidents.jsonl")]
    assert incidents == [(1_002, "skipped step"), (1_002, "went back")]
    logged = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in logged] == list(range(24, 1_009, 24))
    assert sum(line["train/skipped_steps"] for line in logged) == 0


@pytest.mark.slow
def test_a_run_whose_schedule_has_changed_goes_back_to_what_there_is(experiment, tmp_path, monkeypatch, capfd):
    """Checkpoints at 4 and 6, of which the new schedule knows none: better than to start from the beginning."""
    Spoiled(monkeypatch, nan=[6, 7])
    assert loop.train(experiment, tmp_path / "run", until=6) == 0
    moved = replace(experiment, checkpoints=CheckpointConfig(every=5))
    assert loop.train(moved, tmp_path / "run") == 0
    assert "going back to step 6" in capfd.readouterr().err
