"""The best evaluation so far, and when a run without a better one stops; test_loop has whole runs that stop early."""

import math
from dataclasses import replace
from unittest.mock import Mock

import jax.numpy as jnp
import pytest

from transformer_jax.config import EvaluationConfig, Experiment, Numerals, TrainingConfig
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.metrics import score_of
from transformer_jax.training.observer import Observer
from transformer_jax.training.position import Position


def judged(values, metric="loss", patience=None, say=None, start=None):
    """The position behind each evaluation, ten steps apart, until a run would stop."""
    experiment = Experiment(
        data=Numerals(),
        training=TrainingConfig(steps=1000, patience=patience),
        evaluation=EvaluationConfig(metric=metric),
    )
    observer = Mock(spec=Observer, experiment=experiment, say=say or Mock())
    position, positions = start or Position(), []
    for value in values:
        position = replace(position, step=position.step + 10)
        position = Observer.judge(observer, position, None if value is None else {f"validation/{metric}": value})
        positions.append(position)
        if position.is_last(1000):
            break
    return positions


def at(step, best_score, since=0, stopped=False):
    return Position(step=step, best_score=best_score, evaluations_since_best=since, stopped_early=stopped)


def test_patience_counts_from_the_last_better_one():
    positions = judged([3.0, 2.0, 2.5, 2.25, 1.0, 1.5, 1.25, 1.125, 0.5], patience=3)
    assert [position.evaluations_since_best for position in positions] == [0, 0, 1, 2, 0, 1, 2, 3]
    assert [position.stopped_early for position in positions] == 7 * [False] + [True]
    assert positions[-1] == at(80, -1.0, 3, True)


def test_a_run_without_patience_never_stops_early():
    positions = judged([1.0] + 20 * [2.0])
    assert len(positions) == 21
    assert positions[-1].evaluations_since_best == 20


def test_equal_is_not_better():
    assert judged([2.0, 2.0], patience=1)[-1].stopped_early


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_scores_are_better_when_higher(metric):
    assert len(judged([1.0, 2.0, 3.0], metric, patience=1)) == 3
    assert judged([2.0, 1.0, 3.0], metric, patience=1)[-1] == at(20, 2.0, 1, True)


def test_a_step_without_an_evaluation_counts_for_nothing():
    assert judged([2.0, None, None, 3.0], patience=1) == [
        at(10, -2.0),
        at(20, -2.0),
        at(30, -2.0),
        at(40, -2.0, 1, True),
    ]


@pytest.mark.parametrize("metric", ["loss", "bleu"])
def test_nan_is_never_best(metric):
    assert score_of(metric)({f"validation/{metric}": math.nan}) == -math.inf
    _, then = judged([math.nan, 1e6], metric, patience=2)
    assert (then.best_score, then.evaluations_since_best) == (score_of(metric)({f"validation/{metric}": 1e6}), 0)
    positions = judged([1.0, math.nan, math.nan, 1.0], metric, patience=2)
    assert positions[-1] == at(30, score_of(metric)({f"validation/{metric}": 1.0}), 2, True)


def test_a_run_of_nothing_but_nan_stops():
    assert len(judged(10 * [math.nan], patience=3)) == 4


def test_stopping_says_why():
    say = Mock()
    judged([1.0, 2.0, 3.0], patience=2, say=say)
    say.assert_called_once_with("step 30: no better loss in 2 evaluations")


def test_a_stop_in_the_middle_of_patience_goes_on_counting():
    values = [2.0, 3.0, 4.0, 5.0]
    whole = judged(values, patience=3)
    assert judged(values[2:], patience=3, start=whole[1]) == whole[2:]


def test_the_best_checkpoint_is_never_that_of_nan(tmp_path):
    losses = [math.nan, 2.0, math.nan]
    with Checkpoints(tmp_path, newest=1, best=1, score=score_of("loss")) as checkpoints:
        for position, loss in zip(judged(losses), losses, strict=True):
            items = {"parameters": {"x": jnp.full(5, position.step)}}
            checkpoints.save(position.step, items, vars(position), {"validation/loss": loss})
        checkpoints.wait()
        assert checkpoints.best_step() == 20
        assert checkpoints.steps() == [20, 30]


def test_a_position_whose_best_is_nan_is_restored_as_it_was(tmp_path):
    (position,) = judged([math.nan])
    items = {"parameters": {"x": jnp.arange(5)}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(position.step, items, vars(position))
        checkpoints.wait()
        assert Position(**checkpoints.restore(items).position) == position
