"""Embedding, positions, feed-forward network, frames and the two layers, against the formulas of the paper."""

import math
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import masks
from transformer_jax.config import ModelConfig
from transformer_jax.layers import (
    DecoderLayer,
    Embedding,
    EncoderLayer,
    FeedForward,
    Positions,
    Sublayer,
    layer_norm,
    sinusoids,
)

CONFIG = ModelConfig(width=6, num_heads=2, ffn_width=7, vocab_size=5, pad_id=3, dropout=0.0)


def init(module, *arguments, **options):
    return nn.meta.unbox(jax.jit(lambda: module.init(jax.random.key(0), *arguments, **options))())


TABLE = {"params": {"table": jnp.arange(1.0, 31.0).reshape(5, 6)}}


class TestEmbedding:
    def test_rows_times_the_root_of_the_width_and_zero_for_padding(self):
        vectors = Embedding(5, CONFIG).apply(TABLE, jnp.array([[4, 3, 0]]))
        expected = math.sqrt(6) * np.array([[[25, 26, 27, 28, 29, 30], [0] * 6, [1, 2, 3, 4, 5, 6]]])
        np.testing.assert_allclose(vectors, expected, rtol=1e-6)

    def test_no_gradient_to_the_row_of_padding(self):
        tokens = jnp.array([[4, 3, 0, 4]])
        gradient = jax.grad(lambda p: Embedding(5, CONFIG).apply(p, tokens).sum())(TABLE)["params"]["table"]
        np.testing.assert_allclose(gradient[:, 0] / math.sqrt(6), [1, 0, 0, 0, 2], rtol=1e-6)

    def test_logits_are_products_with_every_row(self):
        x = jnp.array([[[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0, -1.0]]])
        logits = Embedding(5, CONFIG).apply(TABLE, x, method="logits")
        np.testing.assert_array_equal(logits, [[[1, 7, 13, 19, 25], [-1] * 5]])

    def test_scaled_vectors_start_with_variance_1(self):
        module = Embedding(211, replace(CONFIG, width=128))
        table = init(module, jnp.zeros((1, 1), jnp.int32))["params"]["table"]
        assert float((table * math.sqrt(128)).var()) == pytest.approx(1, abs=0.05)


class TestSinusoids:
    def test_interleaved_is_the_printed_formula(self):
        table = sinusoids(1001, 6)
        for position in (0, 1, 17, 1000):
            angles = [position / 10_000 ** (2 * i / 6) for i in range(3)]
            expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
            np.testing.assert_allclose(table[position], expected, atol=1e-6)

    def test_halves_are_the_same_values_sines_first(self):
        table = sinusoids(13, 6)
        np.testing.assert_array_equal(sinusoids(13, 6, "halves"), np.concatenate([table[:, ::2], table[:, 1::2]], 1))

    def test_the_authors_frequencies_reach_1_over_10000(self):
        row = sinusoids(8, 6, "authors")[7]
        angles = [7.0, 7 / 100, 7 / 10_000]  # 10000^(-i / 2) for i of 0, 1, 2
        np.testing.assert_allclose(row, [*map(math.sin, angles), *map(math.cos, angles)], atol=1e-6)

    @pytest.mark.parametrize("layout", ["interleaved", "halves", "authors"])
    def test_a_shift_is_one_linear_function_of_every_position(self, layout):
        table = sinusoids(24, 6, layout).reshape(24, 3, 2) if layout == "interleaved" else sinusoids(24, 6, layout)
        sine, cosine = (table[..., 0], table[..., 1]) if layout == "interleaved" else (table[:, :3], table[:, 3:])
        shift = 7  # the coefficients are the values at the shift itself, whatever the position
        np.testing.assert_allclose(sine[7:], sine[:-7] * cosine[shift] + cosine[:-7] * sine[shift], atol=1e-6)
        np.testing.assert_allclose(cosine[7:], cosine[:-7] * cosine[shift] - sine[:-7] * sine[shift], atol=1e-6)

    def test_width_two(self):
        np.testing.assert_allclose(sinusoids(3, 2, "authors"), sinusoids(3, 2))


class TestPositions:
    @pytest.mark.parametrize("layout", ["interleaved", "halves", "authors"])
    def test_they_are_added_at_the_given_positions(self, layout):
        x = jnp.ones((2, 3, 6))
        places = jnp.array([[0, 1, 0], [4, 2, 3]])
        y = Positions(replace(CONFIG, positions=layout)).apply({}, x, places, 5)
        np.testing.assert_allclose(y, 1 + sinusoids(5, 6, layout)[places], rtol=1e-6)

    def test_learned_ones_are_rows_of_a_table(self):
        module = Positions(replace(CONFIG, positions="learned", max_positions=5))
        x, places = jnp.ones((1, 3, 6)), jnp.array([[4, 0, 4]])
        params = init(module, x, places, 5)
        assert params["params"]["table"].shape == (5, 6)
        np.testing.assert_array_equal(module.apply(params, x, places, 5), 1 + params["params"]["table"][places])
        with pytest.raises(ValueError, match="6 positions, but max_positions=5"):
            module.apply(params, x, places, 6)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward(activation, gated):
    module = FeedForward(replace(CONFIG, activation=activation, gated=gated))
    x = jax.random.normal(jax.random.key(1), (2, 3, 6))
    params = jax.tree.map(lambda leaf: leaf + 0.1, init(module, x))  # biases are no longer zero
    p = jax.tree.map(np.asarray, params["params"])

    def project(name, y):
        return y @ p[name]["kernel"] + p[name]["bias"]

    output, function, x = module.apply(params, x), ACTIVATIONS[activation], np.asarray(x)
    hidden = function(project("gate", x)) * project("inner", x) if gated else function(project("inner", x))
    np.testing.assert_allclose(output, project("outer", hidden), atol=1e-5)
    assert p["inner"]["kernel"].shape == (6, 7)


def test_activation_dropout_is_inside_the_feed_forward_network():
    module = FeedForward(replace(CONFIG, ffn_width=6, activation_dropout=0.5))
    identity = {"kernel": jnp.eye(6), "bias": jnp.ones(6)}
    x = jnp.arange(1.0, 31.0).reshape(1, 5, 6)
    params = {"params": {"inner": identity, "outer": identity}}
    y = module.apply(params, x, deterministic=False, rngs={"dropout": jax.random.key(0)})
    assert set(np.ravel((y - 1) / (x + 1)).tolist()) == {0.0, 2.0}  # x + 1 dropped or doubled, and 1 added


def normalise(x, epsilon=1e-6):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


class TestLayerNorm:
    def test_by_hand(self):
        params = {"params": {"scale": jnp.array([1.0, 1, 1, 2]), "bias": jnp.array([0.0, 0, 5, 0])}}
        y = layer_norm(replace(CONFIG, width=4)).apply(params, jnp.array([[1.0, 1, -1, -1]]))
        np.testing.assert_allclose(y, [[1, 1, 4, -2]], atol=1e-5)

    def test_by_the_root_mean_square_there_is_no_mean_and_no_bias(self):
        norm = layer_norm(replace(CONFIG, width=2, norm_type="rms"))
        y = norm.apply({"params": {"scale": jnp.array([1.0, 2.0])}}, jnp.array([[3.0, 4.0]]))
        np.testing.assert_allclose(y, [[3 / 12.5**0.5, 8 / 12.5**0.5]], atol=1e-5)

    def test_a_large_mean_does_not_cancel(self):
        params = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
        y = layer_norm(replace(CONFIG, width=4)).apply(params, 1e4 + jnp.array([[1.0, 1, -1, -1]]))
        np.testing.assert_allclose(y, [[1, 1, -1, -1]], atol=1e-3)

    def test_epsilon_is_added_to_the_variance(self):
        params = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
        y = layer_norm(replace(CONFIG, width=4, norm_epsilon=3.0)).apply(params, jnp.array([[1.0, 1, -1, -1]]))
        np.testing.assert_allclose(y, [[0.5, 0.5, -0.5, -0.5]], rtol=1e-6)


NORM = {"params": {"norm": {"scale": jnp.full(6, 2.0), "bias": jnp.full(6, 0.5)}}}


class TestSublayer:
    x = jnp.array([[[1.0, 2, 3, 4, 5, 9], [0.0, 0, 1, 0, 0, -1]]])

    def run(self, norm, **options):
        frame = Sublayer(replace(CONFIG, norm=norm, dropout=0.5))
        return frame.apply(NORM, self.x, lambda y: (y**2, "extra"), **options)

    def test_post_is_the_norm_of_the_sum(self):
        y, extra = self.run("post", deterministic=True)
        np.testing.assert_allclose(y, 2 * normalise(np.asarray(self.x + self.x**2)) + 0.5, atol=1e-5)
        assert extra == "extra"

    def test_pre_is_the_sum_with_the_function_of_the_norm(self):
        y, _ = self.run("pre", deterministic=True)
        np.testing.assert_allclose(y, self.x + (2 * normalise(np.asarray(self.x)) + 0.5) ** 2, atol=1e-5)

    def test_dropout_is_on_the_output_of_the_function_and_not_on_the_residual(self):
        y, _ = self.run("pre", deterministic=False, rngs={"dropout": jax.random.key(1)})
        function = (2 * normalise(np.asarray(self.x)) + 0.5) ** 2
        ratio = np.asarray(y - self.x) / function
        assert set(np.round(ratio.ravel(), 3)) == {0.0, 2.0}


class TestLayersAlone:
    x, memory = (jax.random.normal(jax.random.key(seed), (2, length, 6)) for seed, length in [(2, 3), (3, 5)])

    def test_encoder_layer(self):
        layer = EncoderLayer(CONFIG)
        params = init(layer, self.memory)
        y, weights = layer.apply(params, self.memory, None, True, True)
        np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(y.mean(-1), 0.0, atol=1e-5)  # post-norm: what comes out is normalised
        assert weights.shape == (2, 2, 5, 5)

    def test_decoder_layer_is_three_sublayers_in_their_order(self):
        layer = DecoderLayer(CONFIG)
        params = init(layer, self.x, self.memory)
        mask = masks.causal_mask(3)

        def by_hand(layer, x, memory):
            x, _ = layer.self_attention_frame(x, lambda y: layer.self_attention(y, y, mask), deterministic=True)
            x, _ = layer.cross_attention_frame(x, lambda y: layer.cross_attention(y, memory), deterministic=True)
            return layer.feed_forward_frame(x, lambda y: (layer.feed_forward(y), None), deterministic=True)[0]

        expected = layer.apply(params, self.x, self.memory, method=by_hand)
        np.testing.assert_array_equal(layer.apply(params, self.x, self.memory, mask)[0], expected)

    def test_without_a_memory_it_says_so(self):
        layer = DecoderLayer(CONFIG)
        with pytest.raises(ValueError, match="memory is None"):
            layer.init(jax.random.key(0), self.x)

    def test_without_an_encoder_there_is_no_cross_attention(self):
        layer = DecoderLayer(replace(CONFIG, encoder_layers=0))
        params = init(layer, self.x)
        assert set(params["params"]) == {"self_attention", "self_attention_frame", "feed_forward", "feed_forward_frame"}
        _, weights = layer.apply(params, self.x, None, masks.causal_mask(3), None, True, True)
        assert weights.cross_attention is None
