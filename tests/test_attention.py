"""Attention against values by hand and a plain numpy reference, and what masks hide."""

import math
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import masks
from transformer_jax.attention import (
    Held,
    KeyValue,
    Memory,
    MultiHeadAttention,
    attention_weights,
    dot_product_attention,
)
from transformer_jax.config import ModelConfig

B, T, S, H, K = 2, 3, 5, 7, 11


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def query_key_value():
    return draw(0, B, T, H, K), draw(1, B, S, H, K), draw(2, B, S, H, K)


def reference(query, key, value, mask):
    """Equation 1, one query at a time, over nothing but the places it may attend to."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    mask = np.broadcast_to(mask, (B, H, T, S))
    output = np.zeros((B, T, H, K))
    for b, h, t in np.ndindex(B, H, T):
        seen = mask[b, h, t]
        exponentials = np.exp(key[b, seen, h] @ query[b, t, h] / math.sqrt(K))
        if seen.any():
            output[b, t, h] = exponentials / exponentials.sum() @ value[b, seen, h]
    return output


class TestByHand:
    query = jnp.array([[[[1.0, 0.0, 0.0, 0.0]]]])
    key = jnp.array([[[[2.0, 0, 0, 0]], [[0.0, 5, 0, 0]]]])  # scaled products 1 and 0
    value = jnp.array([[[[1.0, 0, 0, 8]], [[0.0, 1, 0, 0]]]])
    share = math.e / (1 + math.e)

    def attend(self, **options):
        return dot_product_attention(self.query, self.key, self.value, **options)[0, 0, 0]

    def test_two_keys_one_apart_share_e_to_1(self):
        expected = [self.share, 1 - self.share, 0, 8 * self.share]
        np.testing.assert_allclose(self.attend(), expected, rtol=1e-6)

    def test_scale(self):
        share = math.e**6 / (1 + math.e**6)  # the product is 2
        np.testing.assert_allclose(self.attend(scale=3.0)[:2], [share, 1 - share], rtol=1e-5)

    def test_bias_is_added_to_the_scaled_products(self):
        bias = jnp.array([[[[0.0, 1.0]]]])
        np.testing.assert_allclose(self.attend(bias=bias)[:2], [0.5, 0.5], rtol=1e-6)

    def test_mask(self):
        np.testing.assert_allclose(self.attend(mask=jnp.array([[[[False, True]]]])), [0, 1, 0, 0])

    def test_bias_and_mask_together(self):
        key, value = (jnp.concatenate([x, 9 * x[:, :1]], axis=1) for x in (self.key, self.value))
        bias, mask = jnp.array([[[[0.0, 1.0, 7.0]]]]), jnp.array([[[[True, True, False]]]])
        output = dot_product_attention(self.query, key, value, mask, bias)
        np.testing.assert_allclose(output[0, 0, 0], [0.5, 0.5, 0, 4], rtol=1e-6)


def test_scaled_scores_have_variance_1_and_unscaled_ones_d_k():
    query, key = draw(0, 1, 97, 1, 64), draw(1, 1, 202, 1, 64)

    def variance(scale):  # half that of the difference of two scores, which is that of the logs of their weights
        logs = jnp.log(attention_weights(query, key, scale=scale))
        return float((logs[..., ::2] - logs[..., 1::2]).var()) / 2

    assert variance(None) == pytest.approx(1, rel=0.1)
    assert variance(1.0) == pytest.approx(64, rel=0.1)


def test_huge_products_do_not_overflow():
    output = dot_product_attention(jnp.full((1, 1, 1, 2), 1e10), jnp.full((1, 3, 1, 2), 1e10), jnp.ones((1, 3, 1, 2)))
    np.testing.assert_allclose(output, 1.0, rtol=1e-6)


def random_mask(shape, seed):
    """A random mask; queries 1 see nothing and keys 2 and 3 are seen by none."""
    mask = np.random.default_rng(seed).random(shape) < 0.5
    mask[..., 0, 0] = True
    mask[..., 2, 1] = True
    mask[..., 1, :] = False
    mask[..., 2:4] = False
    return mask


@pytest.mark.parametrize(
    ("shape", "rubbish"),
    [((B, H, T, S), np.nan), ((B, 1, T, S), np.inf), ((1, H, T, S), -np.inf), ((1, 1, T, S), np.nan)],
    ids=str,
)
class TestMasked:
    def setup(self, shape, rubbish):
        mask = random_mask(shape, seed=sum(shape))
        query, key, value = query_key_value()
        clean = (query, key, value)
        dirty = query.at[:, 1].set(rubbish), key.at[:, 2].set(rubbish), value.at[:, 2:4, :, 0].set(rubbish)
        return jnp.asarray(mask), clean, dirty

    def test_it_is_the_reference_and_the_hidden_is_as_if_not_there(self, shape, rubbish):
        mask, clean, dirty = self.setup(shape, rubbish)
        output = dot_product_attention(*dirty, mask)
        np.testing.assert_allclose(output, reference(*clean, mask), atol=1e-5)
        np.testing.assert_array_equal(output[:, 1], 0.0)

    def test_no_gradient_into_the_hidden_and_the_same_elsewhere(self, shape, rubbish):
        mask, clean, dirty = self.setup(shape, rubbish)
        gradient = jax.grad(lambda arrays: (dot_product_attention(*arrays, mask) ** 2).sum())
        of_query, of_key, of_value = gradient(dirty)
        np.testing.assert_array_equal(of_query[:, 1], 0.0)
        np.testing.assert_array_equal(of_key[:, 2:4], 0.0)
        np.testing.assert_array_equal(of_value[:, 2:4], 0.0)
        for dirty_gradient, clean_gradient in zip((of_query, of_key, of_value), gradient(clean), strict=True):
            np.testing.assert_allclose(dirty_gradient, clean_gradient, atol=1e-5)
            assert clean_gradient.any()


@pytest.mark.parametrize("which", ["key", "value"])
def test_a_nan_that_is_attended_to_reaches_exactly_the_queries_that_see_it(which):
    mask = jnp.array([[[[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [1, 0, 0, 1, 1]]]], bool)
    query, key, value = query_key_value()
    key, value = (x.at[1, 1, 3, 5].set(jnp.nan) if which == name else x for name, x in [("key", key), ("value", value)])
    nan = jnp.isnan(dot_product_attention(query, key, value, mask)).any(-1)  # -> [B T H]
    expected = np.zeros((B, T, H), bool)
    expected[1, :2, 3] = True  # in the one sentence and head, the queries with a 1 at key 1
    np.testing.assert_array_equal(nan, expected)


class TestMultiHead:
    config = ModelConfig(width=10, num_heads=3, head_width=7)  # 3 * 7 is neither 10 nor a multiple of it

    def make(self):
        x, memory = draw(3, B, T, 10), draw(4, B, S, 10)
        module = MultiHeadAttention(self.config)
        return module, nn.meta.unbox(module.init(jax.random.key(5), x, memory)), x, memory

    def test_it_is_each_head_by_itself_side_by_side_times_w_o(self):
        module, params, x, memory = self.make()
        mask = jnp.asarray(random_mask((B, 1, T, S), seed=1))
        output, weights = module.apply(params, x, memory, mask, return_weights=True)
        kernels = {name: kernel["kernel"] for name, kernel in params["params"].items()}
        heads = []
        for head in range(3):
            channels = slice(7 * head, 7 * head + 7)
            q, k, v = x @ kernels["query"][:, channels], *(memory @ kernels[n][:, channels] for n in ("key", "value"))
            own = jax.nn.softmax(jnp.where(mask[:, 0], jnp.einsum("BTK,BSK->BTS", q, k) / math.sqrt(7), -1e9))
            own = jnp.where(mask[:, 0], own, 0.0)
            np.testing.assert_allclose(weights[:, head], own, atol=1e-5)
            heads.append(own @ v)
        np.testing.assert_allclose(output, jnp.concatenate(heads, -1) @ kernels["out"], atol=1e-5)
        assert {name: kernel.shape for name, kernel in kernels.items()} == {
            "query": (10, 21),
            "key": (10, 21),
            "value": (10, 21),
            "out": (21, 10),
        }

    def test_keys_and_values_made_before_give_the_same(self):
        module, params, x, memory = self.make()
        made, expected = module.apply(params, memory, method="keys_values"), module.apply(params, x, memory)[0]
        rows, places = made[0].shape[:2]
        held = Held(KeyValue.of(*made), jnp.zeros((rows, 1, places), int), jnp.array(places))
        np.testing.assert_array_equal(module.apply(params, x, held, jnp.ones((1, 1, 1, places), bool))[0], expected)
        np.testing.assert_allclose(module.apply(params, x, Memory.of(*made))[0], expected, atol=1e-6)

    def test_dropout_is_on_the_weights_and_the_weights_returned_are_before_it(self):
        _, params, x, memory = self.make()
        module = MultiHeadAttention(replace(self.config, attention_dropout=0.5))
        rngs = {"dropout": jax.random.key(0)}
        dropped, weights = module.apply(params, x, memory, deterministic=False, return_weights=True, rngs=rngs)
        kept, same = module.apply(params, x, memory, return_weights=True)
        np.testing.assert_array_equal(weights, same)
        assert (dropped != kept).any()

    def test_masked_nan_in_the_memory_passes_neither_into_output_nor_parameters(self):
        module, params, x, memory = self.make()
        mask = masks.segment_mask(jnp.ones((B, T), int), jnp.array([[1, 1, 1, 0, 0]] * B))

        def loss(params, memory):
            return module.apply(params, x, memory, mask)[0].sum()

        dirty, clean = memory.at[:, 3:].set(jnp.nan), memory.at[:, 3:].set(0.0)
        np.testing.assert_allclose(loss(params, dirty), loss(params, clean), rtol=1e-6)
        np.testing.assert_array_equal(jax.grad(loss, argnums=1)(params, dirty)[:, 3:], 0.0)


class TestGrouped:
    """Twelve heads of queries over 1, 2, 3 or 12 of keys and values; the reference looks up which."""

    def arrays(self, groups):
        return draw(0, B, T, 12, K), draw(1, B, S, groups, K), draw(2, B, S, groups, K)

    def one_by_one(self, query, key, value, mask):
        query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
        output = np.zeros((B, T, 12, K))
        for b, t, h in np.ndindex(B, T, 12):
            own = h // (12 // key.shape[2])
            seen = np.asarray(mask)[b, 0, t]
            exponentials = np.exp(key[b, seen, own] @ query[b, t, h] / math.sqrt(K))
            if seen.any():
                output[b, t, h] = exponentials / exponentials.sum() @ value[b, seen, own]
        return output

    @pytest.mark.parametrize("groups", [1, 2, 3, 12])
    def test_heads_side_by_side_share_keys_and_values(self, groups):
        mask = jnp.asarray(random_mask((B, 1, T, S), seed=3))
        found = dot_product_attention(*self.arrays(groups), mask)
        np.testing.assert_allclose(found, self.one_by_one(*self.arrays(groups), mask), atol=1e-5)

    def test_gradients_are_those_of_repeated_keys_and_values(self):
        mask = jnp.asarray(random_mask((B, 1, T, S), seed=4))
        bias = draw(5, B, 12, T, S)

        def gradients(*arrays):
            return jax.grad(lambda arrays: (dot_product_attention(*arrays, mask, bias) ** 2).sum())(arrays)

        query, key, value = self.arrays(3)
        narrow = jax.jit(gradients)(query, key, value)
        wide = jax.jit(gradients)(query, *(jnp.repeat(x, 4, axis=2) for x in (key, value)))
        np.testing.assert_allclose(narrow[0], wide[0], atol=1e-4)
        for one, repeated in zip(narrow[1:], wide[1:], strict=True):
            np.testing.assert_allclose(one, repeated.reshape(B, S, 3, 4, K).sum(3), atol=1e-4)

    def test_a_nan_reaches_the_heads_that_share_it_and_no_other(self):
        query, key, value = self.arrays(3)
        mask = jnp.ones((B, 1, T, S), bool)
        output = dot_product_attention(query, key.at[1, 2, 1].set(jnp.nan), value, mask)
        expected = np.zeros((B, T, 12), bool)
        expected[1, :, 4:8] = True
        np.testing.assert_array_equal(np.isnan(output).all(-1), expected)
        np.testing.assert_array_equal(np.isnan(output).any(-1), expected)

    @pytest.mark.parametrize("normalised", [False, True])
    def test_multi_head_is_each_head_by_itself(self, normalised):
        config = ModelConfig(width=10, num_heads=6, kv_heads=2, head_width=3, query_key_norm=normalised)
        module, x, memory = MultiHeadAttention(config), draw(3, B, T, 10), draw(4, B, S, 10)
        params = nn.meta.unbox(jax.jit(module.init)(jax.random.key(5), x, memory))["params"]
        kernels = {name: np.asarray(params[name]["kernel"]) for name in ("query", "key", "value", "out")}
        assert [kernels[name].shape for name in ("query", "key", "value", "out")] == [
            (10, 18),
            (10, 6),
            (10, 6),
            (18, 10),
        ]
        if normalised:
            scales = {name: np.asarray(draw(6 + i, 3)) for i, name in enumerate(("query", "key"))}
            params |= {f"{name}_norm": {"scale": scale} for name, scale in scales.items()}

        def normal(x, name):
            if not normalised:
                return x
            return scales[name] * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

        heads, own = [], [np.asarray(x), np.asarray(memory)]
        for head in range(6):
            ours, theirs = slice(3 * head, 3 * head + 3), slice(3 * (head // 3), 3 * (head // 3) + 3)
            q, k = (
                normal(own[0] @ kernels["query"][:, ours], "query"),
                normal(own[1] @ kernels["key"][:, theirs], "key"),
            )
            weights = jax.nn.softmax(jnp.einsum("BTK,BSK->BTS", q, k) / math.sqrt(3))
            heads.append(weights @ (own[1] @ kernels["value"][:, theirs]))
        expected = np.concatenate(heads, -1) @ kernels["out"]
        found, _ = module.apply({"params": params}, x, memory)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        kept = module.apply({"params": params}, memory, method="keys_values")
        assert [x.shape for x in kept] == [(B, S, 2, 3)] * 2
        np.testing.assert_allclose(module.apply({"params": params}, x, Memory.of(*kept))[0], found, atol=1e-6)

    def test_the_norm_of_queries_and_keys_is_of_the_model(self):
        """By the root mean square alone: (3, 4) becomes (3, 4) / sqrt(12.5), and its product with itself is 2."""
        config = ModelConfig(width=2, num_heads=1, query_key_norm=True, norm_type="rms", scale_attention=False)
        identity = {name: {"kernel": jnp.eye(2)} for name in ("query", "key", "value", "out")}
        norms = {f"{name}_norm": {"scale": jnp.ones(2)} for name in ("query", "key")}
        memory = jnp.array([[[30.0, 40.0], [-3.0, -4.0]]])
        params = {"params": identity | norms}
        _, weights = MultiHeadAttention(config).apply(params, memory[:, :1], memory, return_weights=True)
        np.testing.assert_allclose(weights[0, 0, 0], jax.nn.softmax(jnp.array([2.0, -2.0])), atol=1e-5)
