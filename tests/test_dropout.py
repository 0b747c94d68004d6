"""Dropout: its share, its mean, and masks that do not depend on where they are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from transformer_jax.config import MeshConfig
from transformer_jax.dropout import Dropout, dropout, random_bits
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


def correlation(one, other):
    """Of two fields of +1 and -1: the mean of their products, in deviations of what independent ones would have."""
    return abs(float((one * other).mean())) * one.size**0.5


def test_bits_are_independent_of_their_neighbours_of_other_keys_and_of_other_bits():
    # Of 32 bits at 2^14 places under 8 keys, as steps and sublayers make them: no pair of neighbours along an axis, no
    # pair of keys and no pair of bits is further from independence than 5.5 deviations: of 2,000 pairs of ideal bits,
    # one in 10,000 such tests would be.
    root = jax.random.key(11)
    bits = np.stack([np.asarray(random_bits(jax.random.fold_in(root, step), (64, 256))) for step in range(8)])
    signs = np.stack([1.0 - 2.0 * ((bits >> np.uint32(bit)) & 1) for bit in range(32)])  # -> [bit, key, 64, 256]
    assert max(abs(field.mean()) * field.size**0.5 for field in signs.reshape(-1, 64, 256)) < 5.5
    for field in signs.reshape(-1, 64, 256):
        for shift in (1, 2, 3, 16):
            assert correlation(field[:, shift:], field[:, :-shift]) < 5.5
            assert correlation(field[shift:], field[:-shift]) < 5.5
    for one in range(32):
        for other in range(one):
            assert correlation(signs[one], signs[other]) < 5.5
    for one in range(8):
        for other in range(one):
            assert correlation(signs[31, one], signs[31, other]) < 5.5


def test_runs_of_kept_and_dropped_places_come_as_often_as_they_should():
    # Chi-squared of the 16 patterns of 4 neighbours, at a rate of 1/2: 15 degrees of freedom, mean 15, deviation 5.5.
    bits = np.asarray(random_bits(jax.random.key(13), (1024, 256))) >> np.uint32(31)
    patterns = (bits.reshape(-1, 4) * np.array([8, 4, 2, 1], np.uint32)).sum(-1)
    expected = patterns.size / 16
    chi_squared = float(((np.bincount(patterns, minlength=16) - expected) ** 2 / expected).sum())
    assert 1 < chi_squared < 45


def test_all_values_are_about_equally_likely():
    # 2^18 values in 256 bins: chi-squared has mean 255 and deviation 22.6.
    bits = np.asarray(random_bits(jax.random.key(17), (2**18,))) >> np.uint32(24)
    counts = np.bincount(bits, minlength=256)
    assert 150 < float(((counts - 1024) ** 2 / 1024).sum()) < 370
