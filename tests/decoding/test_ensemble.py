"""An ensemble decodes from the mean of its models."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from chains import (
    EOS,
    PAD,
    A,
    B,
    assert_found,
    found,
    log_softmax,
    new_cache,
    random_tables,
    reference_beam_search,
    select,
    step_of,
    table_model,
)

from transformer_jax.decoding import BeamSearch, Greedy, StepModel, ensemble
from transformer_jax.errors import InputError

#   The first model says A .6, B .4; the second A .1, B .9. After either, the end.
FIRST = np.array([[0, 0, 0.6, 0.4], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])
SECOND = np.array([[0, 0, 0.1, 0.9], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])


def model(chain, pad_id=PAD):
    return StepModel(step_of(chain), select, pad_id, EOS)


def both(weights=None, mean="probabilities"):
    """The two outputs of a beam over both models, with their probabilities."""
    joint = ensemble([model(FIRST), model(SECOND)], weights, mean)
    caches = (jnp.zeros(2), jnp.ones(2))
    return found(BeamSearch(2, 0.0, n_best=2).search(joint, caches, jnp.array([3]), max_length=3))


def test_the_mean_of_probabilities():
    assert both() == [([B, EOS], 0.65), ([A, EOS], 0.35)]


def test_weights():
    assert both([3.0, 1.0]) == [([B, EOS], 0.525), ([A, EOS], 0.475)]
    assert both([1.0, 0.0]) == [([A, EOS], 0.6), ([B, EOS], 0.4)]


def test_the_mean_of_log_probabilities_is_the_geometric_one():
    a, b = math.sqrt(0.6 * 0.1), math.sqrt(0.4 * 0.9)
    (first, p), (second, q) = both(mean="log_probabilities")
    assert (first, second) == ([B, EOS], [A, EOS])
    assert (p, q) == (pytest.approx(b / (a + b), abs=1e-5), pytest.approx(a / (a + b), abs=1e-5))
    assert both([0.0, 1.0], "log_probabilities") == [([B, EOS], 0.9), ([A, EOS], 0.1)]


def test_caches_are_reordered_together():
    """Two tables over whole prefixes: each model must follow its own cache, beam for beam."""
    first, second = random_tables(41, 2, 5, 4), random_tables(43, 2, 5, 4)
    joint = ensemble([table_model(first), table_model(second)])
    sentences = jnp.arange(2)
    caches = (new_cache(sentences, 3), new_cache(sentences, 3))
    hypotheses = BeamSearch(3, 0.6, n_best=3).search(joint, caches, jnp.array([4, 3]), max_length=4)
    means = np.logaddexp(each_log_softmax(first), each_log_softmax(second))  # twice the mean, normalised again later
    for sentence, limit in enumerate([4, 3]):
        assert_found(hypotheses, sentence, reference_beam_search(means[sentence], limit, 3, 0.6))


def each_log_softmax(tables):
    with np.errstate(divide="ignore"):
        return np.apply_along_axis(log_softmax, -1, np.asarray(tables))


def test_one_model_is_itself():
    alone = ensemble([model(FIRST)])
    assert found(Greedy().search(alone, (jnp.zeros(1),), jnp.array([3]), max_length=3)) == [([A, EOS], 0.6)]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: ensemble([]), "needs a model"),
        (lambda: both([1.0]), r"weights=\[1.0\]: an ensemble of 2 needs as many"),
        (lambda: both([1.0, -1.0]), "0 or more"),
        (lambda: both([0.0, 0.0]), "not all 0"),
        (lambda: ensemble([model(FIRST), model(SECOND, pad_id=3)]), "different padding or end tokens"),
    ],
)
def test_mistakes_are_named(mistake, message):
    with pytest.raises(InputError, match=message):
        mistake()
