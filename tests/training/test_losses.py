"""Cross-entropy against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.projection import LogitSums
from transformer_jax.training import losses
from transformer_jax.training.losses import LossSums

B, T, V = 2, 3, 7


def draw():
    logits = 3 * jax.random.normal(jax.random.key(0), (B, T, V))
    targets = jnp.array([[0, 6, 2], [3, 3, 5]])
    weights = jnp.array([[1.0, 1, 0], [1, 0.5, 1]])
    return logits, targets, weights


def cross_entropy(logits, targets, weights, label_smoothing=0.0):
    return losses.cross_entropy(LogitSums.of(logits, targets), logits.shape[-1], weights, label_smoothing)


def smoothed(targets, epsilon):
    """(1 - epsilon) onehot + epsilon / V, written out."""
    return (1 - epsilon) * np.eye(V)[np.asarray(targets)] + epsilon / V


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_two_words_by_hand():
    sums = cross_entropy(jnp.log(jnp.array([[[1.0, 3.0]]])), jnp.array([[1]]), jnp.ones((1, 1)), 0.2)
    assert float(sums.log_loss) == pytest.approx(-np.log(0.75))
    assert float(sums.loss) == pytest.approx(-0.9 * np.log(0.75) - 0.1 * np.log(0.25))
    assert float(sums.tokens) == 1


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_it_is_the_sum_over_tokens_of_the_definition(epsilon):
    logits, targets, weights = draw()
    sums = cross_entropy(logits, targets, weights, epsilon)
    loss = -(smoothed(targets, epsilon) * log_softmax(logits)).sum(-1)
    log_loss = -(smoothed(targets, 0.0) * log_softmax(logits)).sum(-1)
    np.testing.assert_allclose(sums.loss, (loss * weights).sum(), rtol=1e-6)
    np.testing.assert_allclose(sums.log_loss, (log_loss * weights).sum(), rtol=1e-6)
    assert float(sums.tokens) == 4.5


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_the_gradient_is_softmax_less_the_smoothed_target(epsilon):
    logits, targets, weights = draw()
    gradient = jax.grad(lambda z: cross_entropy(z, targets, weights, epsilon).loss)(logits)
    expected = (np.exp(log_softmax(logits)) - smoothed(targets, epsilon)) * np.asarray(weights)[..., None]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_a_nan_that_counts_shows():
    logits, targets, weights = draw()
    assert jnp.isnan(cross_entropy(logits.at[0, 0, 1].set(jnp.nan), targets, weights, 0.1).loss)


def test_sums_add():
    logits, targets, weights = draw()
    parts = [cross_entropy(logits[b : b + 1], targets[b : b + 1], weights[b : b + 1], 0.1) for b in range(B)]
    whole = cross_entropy(logits, targets, weights, 0.1)
    total = sum(parts, LossSums.zero())
    np.testing.assert_allclose(jax.tree.leaves(total), jax.tree.leaves(whole), rtol=1e-6)
