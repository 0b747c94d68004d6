"""Dropout: its share, its mean, and masks that do not depend on where they are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from transformer_jax.config import MeshConfig
from transformer_jax.dropout import Dropout, dropout
from transformer_jax.sharding import make_mesh


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_the_share_of_zeros_is_the_rate_and_the_mean_stays(rate):
    count = 100_000
    y = dropout(jnp.ones(count), rate, jax.random.key(7))
    bound = 5 * (rate * (1 - rate) / count) ** 0.5  # five deviations of a binomial share
    assert abs(float((y == 0).mean()) - rate) < bound
    assert abs(float(y.mean()) - 1) < bound / (1 - rate)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_no_rate_and_determinism_are_the_identity_and_draw_no_key():
    x = jnp.arange(5.0)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, deterministic=False), x)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, deterministic=True), x)


def test_each_call_and_each_key_draws_another_mask():
    module, x = Dropout(0.5), jnp.ones(64)

    def twice(module, x):
        return module(x, deterministic=False), module(x, deterministic=False)

    first, second = module.apply({}, x, rngs={"dropout": jax.random.key(0)}, method=twice)
    other, _ = module.apply({}, x, rngs={"dropout": jax.random.key(1)}, method=twice)
    assert (first != second).any()
    assert (first != other).any()


@pytest.mark.parametrize("spec", [("data",), (None, "fsdp"), (("data", "fsdp"), "tensor")], ids=str)
def test_the_mask_is_the_same_however_the_array_is_split(spec):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    x = jax.random.normal(jax.random.key(3), (8, 6))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    drop = jax.jit(dropout, static_argnums=1)
    assert not split.is_fully_replicated
    np.testing.assert_array_equal(drop(split, 0.3, jax.random.key(5)), drop(x, 0.3, jax.random.key(5)))


def test_the_gradient_passes_where_the_value_does():
    x = jnp.arange(1.0, 65.0)
    gradient = jax.grad(lambda x: dropout(x, 0.25, jax.random.key(2)).sum())(x)
    np.testing.assert_allclose(gradient, dropout(jnp.ones(64), 0.25, jax.random.key(2)))
