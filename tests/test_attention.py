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
    Cache,
    KeyValue,
    LayerCache,
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
        made = module.apply(params, memory, method="keys_values")
        np.testing.assert_array_equal(module.apply(params, x, made)[0], module.apply(params, x, memory)[0])

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


class TestCache:
    def cache(self, sentences, beams, *, masked=True):
        rows = sentences * beams
        past = jnp.arange(rows, dtype=jnp.float32).reshape(rows, 1, 1, 1)
        memory = 10.0 * jnp.arange(sentences, dtype=jnp.float32).reshape(sentences, 1, 1, 1)
        mask = (jnp.arange(sentences) % 3 > 0).reshape(sentences, 1, 1, 1) if masked else None
        return Cache((LayerCache(KeyValue(past, -past), KeyValue(memory, -memory)),), jnp.arange(rows), mask)

    def test_entries_are_written_behind_the_length_of_each_row(self):
        empty = KeyValue(*(jnp.zeros((2, 1, 5, 1)) for _ in range(2)))
        new = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 1, 2, 1)
        written = empty.write(KeyValue(new, 10 * new), jnp.array([0, 3]))
        np.testing.assert_array_equal(written.key[:, 0, :, 0], [[1, 2, 0, 0, 0], [0, 0, 0, 3, 4]])
        np.testing.assert_array_equal(written.value, 10 * written.key)

    def test_reorder_exchanges_rows_and_leaves_the_memory(self):
        before = self.cache(sentences=2, beams=3)
        after = before.reorder(jnp.array([2, 2, 0, 3, 5, 4]))
        np.testing.assert_array_equal(after.layers[0].past.key.ravel(), [2, 2, 0, 3, 5, 4])
        np.testing.assert_array_equal(after.lengths, [2, 2, 0, 3, 5, 4])
        assert after.layers[0].memory is before.layers[0].memory
        assert after.memory_mask is before.memory_mask

    @pytest.mark.parametrize("masked", [True, False])
    def test_select_takes_memory_and_mask_along(self, masked):
        after = self.cache(sentences=3, beams=2, masked=masked).select(jnp.array([5, 4, 0, 1]))
        np.testing.assert_array_equal(after.layers[0].past.value.ravel(), [-5, -4, 0, -1])
        np.testing.assert_array_equal(after.layers[0].memory.key.ravel(), [20, 0])
        np.testing.assert_array_equal(after.lengths, [5, 4, 0, 1])
        if masked:
            np.testing.assert_array_equal(after.memory_mask.ravel(), [True, False])
        else:
            assert after.memory_mask is None
