"""Rotary positions, against turning complex numbers one by one; what is far apart is all that matters."""

import cmath

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention import MultiHeadAttention, Places, rotated, rotation
from transformer_jax.config import ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.layers import DecoderLayer
from transformer_jax.masks import SegmentMask

B, T, H, K = 2, 5, 3, 6
BASE = 100.0
SIZES = {"width": 10, "num_heads": H, "head_width": K, "ffn_width": 7, "positions": "rotary", "dropout": 0.0}
POSITIONS = jnp.array([[0, 1, 2, 0, 1], [3, 5, 4, 0, 11]])


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_pairs_of_channels_are_complex_numbers_that_are_turned():
    x = np.asarray(draw(0, B, T, H, K), np.float64)
    expected = np.zeros_like(x)
    for b, t, h, pair in np.ndindex(B, T, H, K // 2):
        angle = int(POSITIONS[b, t]) * BASE ** (-2 * pair / K)
        turned = complex(x[b, t, h, pair], x[b, t, h, pair + 3]) * cmath.exp(1j * angle)
        expected[b, t, h, pair], expected[b, t, h, pair + 3] = turned.real, turned.imag
    np.testing.assert_allclose(rotated(jnp.asarray(x, jnp.float32), rotation(POSITIONS, K, BASE)), expected, atol=1e-5)


def test_by_hand():
    quarter = rotation(jnp.array([[0, 1, 2]]), 2, 1.0)  # one radian a place, whatever the base
    turned = rotated(jnp.ones((1, 3, 1, 2)), quarter)[0, :, 0]
    sine, cosine = np.sin([0, 1, 2]), np.cos([0, 1, 2])
    np.testing.assert_allclose(turned, np.stack([cosine - sine, cosine + sine], -1), atol=1e-6)


def test_products_hang_on_the_distance_alone():
    """The same query and key wherever they stand: of two pairs as far apart the products are the same."""
    query, key = (jnp.broadcast_to(draw(seed, 1, 1, 1, K), (1, 31, 1, K)) for seed in (1, 2))
    by = rotation(jnp.arange(31)[None], K)
    products = np.einsum("BTHK,BSHK->TS", rotated(query, by), rotated(key, by))
    for distance in range(-30, 31):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-4)
    assert np.ptp([products[0, 0], products[0, 1], products[1, 0]]) > 0.01


def test_half_precision_is_turned_in_float32():
    by, x = rotation(POSITIONS + 1000, K), draw(3, B, T, H, K)
    assert rotated(x.astype(jnp.bfloat16), by).dtype == jnp.bfloat16
    np.testing.assert_allclose(rotated(x.astype(jnp.bfloat16), by).astype(jnp.float32), rotated(x, by), atol=0.03)


class TestMultiHead:
    module, x = MultiHeadAttention(ModelConfig(**SIZES)), draw(4, 1, T, 10)
    mask = SegmentMask(*(jnp.ones((1, T), jnp.int32),) * 2, causal=True)

    def attend(self, positions, **options):
        params = nn.meta.unbox(self.module.init(jax.random.key(5), self.x, self.x))
        return self.module.apply(params, self.x, self.x, self.mask, None, rotation(positions, K), **options)

    def test_a_shift_of_all_positions_changes_nothing_and_one_of_some_does(self):
        places = jnp.arange(T)[None]
        output, _ = self.attend(places)
        np.testing.assert_allclose(self.attend(places + 17)[0], output, atol=1e-5)
        assert np.abs(self.attend(places * 2)[0] - output)[0, 1:].max() > 1e-3

    def test_the_fast_paths_give_the_same(self):
        places = jnp.arange(T)[None]
        np.testing.assert_allclose(self.attend(places)[0], self.attend(places, return_weights=True)[0], atol=1e-6)


def test_a_layer_turns_what_attends_to_itself_and_not_the_memory():
    memory, x, order = draw(6, 1, T, 10), draw(7, 1, T, 10), np.array([2, 0, 4, 3, 1])
    layer = DecoderLayer(ModelConfig(**SIZES))

    @jax.jit
    def output(x, memory, positions):
        places = Places(rotation=rotation(positions, K))
        return layer.apply(layer.init(jax.random.key(0), x, memory), x, memory, places=places)[0]

    first = jnp.arange(T)[None]
    np.testing.assert_allclose(output(x, memory[:, order], first), output(x, memory, first), atol=1e-5)
    assert np.abs(output(x, memory, 2 * first) - output(x, memory, first)).max() > 1e-3


def test_odd_channels_are_refused():
    with pytest.raises(InputError, match="head_width=5 is odd; rotary positions turn pairs of channels"):
        ModelConfig(positions="rotary", head_width=5)
