"""Attention by segments and in blocks: the same numbers and gradients as all at once, in memory that grows linearly."""

import functools
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from transformer_jax import topologies
from transformer_jax.attention import MultiHeadAttention, blockwise_attention, dot_product_attention, flash, paths
from transformer_jax.config import MeshConfig, ModelConfig
from transformer_jax.dropout import Within, dropout, random_bits
from transformer_jax.masks import SegmentMask
from transformer_jax.programs import collectives
from transformer_jax.sharding import make_mesh, on_mesh

B, T, S, H, K = 2, 11, 13, 3, 5
SEGMENTS = jnp.array([[1] * 4 + [2] * 5 + [0] * 2, [1] * 11])  # [B T]
KEY_SEGMENTS = jnp.array([[1] * 7 + [3] * 3 + [0] * 3, [1] * 12 + [0]])  # [B S]; of segment 2 there is none
MASKS = {
    "cross": SegmentMask(SEGMENTS, KEY_SEGMENTS),
    "causal": SegmentMask(SEGMENTS, SEGMENTS, causal=True),
    "self": SegmentMask(SEGMENTS, SEGMENTS),
}


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def query_key_value(mask):
    keys = mask.key.shape[1]
    return draw(0, B, T, H, K), draw(1, B, keys, H, K), draw(2, B, keys, H, K)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
class TestInBlocks:
    @pytest.mark.parametrize("block", [1, 4, T, 16])
    def test_it_is_attention_all_at_once(self, mask, block):
        arrays = query_key_value(mask)
        output = blockwise_attention(*arrays, mask, block=block)
        np.testing.assert_allclose(output, dot_product_attention(*arrays, mask.dense()), atol=1e-6)
        np.testing.assert_array_equal(output[0, 9:], 0.0)  # padding attends to nothing

    def test_so_are_its_gradients_and_rubbish_behind_the_mask_is_as_if_not_there(self, mask):
        query, key, value = query_key_value(mask)
        hidden = (mask.key == 0)[..., None, None]
        dirty = query.at[0, 9:].set(jnp.nan), jnp.where(hidden, jnp.inf, key), jnp.where(hidden, jnp.nan, value)

        def of(attend, arrays):
            return jax.grad(lambda arrays: (attend(*arrays) ** 2).sum())(arrays)

        blocks = of(lambda *arrays: blockwise_attention(*arrays, mask, block=4), dirty)
        whole = of(lambda *arrays: dot_product_attention(*arrays, mask.dense()), (query, key, value))
        for one, other in zip(blocks, whole, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
            assert other.any()

    def test_sees_is_any_of_the_dense_mask(self, mask):
        np.testing.assert_array_equal(mask.sees(), mask.dense()[:, 0].any(-1))


def test_heads_share_keys_in_blocks_as_they_do_at_once():
    mask, query = MASKS["causal"], draw(0, B, T, 6, K)
    key, value = draw(1, B, T, 2, K), draw(2, B, T, 2, K)
    whole = dot_product_attention(query, key, value, mask.dense())
    np.testing.assert_allclose(blockwise_attention(query, key, value, mask, block=4), whole, atol=1e-6)
    assert np.abs(whole - dot_product_attention(query, key[:, :, ::-1], value, mask.dense())).max() > 0.1


class TestDropout:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_part_is_drawn_as_it_is_within_the_whole(self, axis):
        shape, key = (3, 7, 5), jax.random.key(4)
        part = [3, 7, 5]
        part[axis] = 2
        whole = random_bits(key, shape)
        drawn = random_bits(key, tuple(part), Within(axis, shape[axis], first=1))
        np.testing.assert_array_equal(drawn, jax.lax.slice_in_dim(whole, 1, 3, axis=axis))

    def test_blocks_drop_the_weights_that_the_whole_drops(self):
        mask = MASKS["causal"]
        arrays = query_key_value(mask)

        def drop(weights, first=0):
            return dropout(weights, 0.4, jax.random.key(6), Within(axis=2, size=T, first=first))

        whole = dot_product_attention(*arrays, mask.dense(), drop=drop)
        np.testing.assert_allclose(blockwise_attention(*arrays, mask, drop, block=4), whole, atol=1e-6)
        assert (whole != dot_product_attention(*arrays, mask.dense())).any()


class TestChoice:
    config = ModelConfig(width=6, num_heads=2, attention_dropout=0.3)

    def output(self, **flags):
        module, x = MultiHeadAttention(self.config), draw(5, B, T, 6)
        params = nn.meta.unbox(module.init(jax.random.key(0), x, x))
        rngs = {"dropout": jax.random.key(1)}
        return module.apply(params, x, x, MASKS["causal"], deterministic=False, rngs=rngs, **flags)

    def test_long_sequences_go_in_blocks_to_the_same_numbers_dropout_and_all(self, monkeypatch):
        whole, weights = self.output()
        monkeypatch.setattr(paths, "WHOLE", T - 1)
        monkeypatch.setattr(paths, "blockwise_attention", functools.partial(blockwise_attention, block=4))
        traced = jax.make_jaxpr(lambda: self.output()[0])()
        assert any(equation.primitive.name == "scan" for equation in traced.eqns)
        np.testing.assert_allclose(self.output()[0], whole, atol=1e-6)
        assert weights is None

    def test_where_weights_are_wanted_all_are_computed(self, monkeypatch):
        monkeypatch.setattr(paths, "WHOLE", T - 1)
        output, weights = self.output(return_weights=True)
        assert weights.shape == (B, 2, T, T)
        monkeypatch.undo()
        np.testing.assert_array_equal(output, self.output()[0])

    @pytest.mark.parametrize(
        ("shape", "keys", "takes"),
        [
            ((8, 256, 2, 64), 384, True),
            ((8, 256, 2, 64), 200, False),  # no whole blocks
            ((8, 256, 2, 256), 384, True),
            ((8, 256, 2, 160), 384, False),  # neither one tile of channels nor several
            ((6, 256, 2, 64), 384, False),  # rows that four devices do not share evenly
            ((8, 256, 3, 64), 384, False),  # nor two devices the heads
        ],
    )
    def test_what_the_kernel_of_a_tpu_takes(self, shape, keys, takes):
        query, key = jnp.zeros(shape), jnp.zeros((shape[0], keys, *shape[2:]))
        assert not flash.tpu_takes(query, key)  # no mesh says which device runs it
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        assert on_mesh(mesh, flash.tpu_takes)(query, key) == takes

    def test_without_a_gpu_there_is_no_cudnn(self):
        x = jnp.zeros((1, 2, 1, 8), jnp.bfloat16)
        assert flash.cudnn_takes(x, x, MASKS["self"]) == (jax.default_backend() == "gpu")


@pytest.mark.parametrize(
    ("name", "heads"),
    [("causal", (2, 1)), *(pytest.param(name, (1, 1), marks=pytest.mark.slow) for name in ("causal", "cross"))],
)
def test_the_kernel_of_a_tpu_is_the_reference(name, heads):
    """Interpreted: rows of segments, padding, a segment without keys, and NaN where nothing sees or is seen."""
    lengths = {"cross": ([40, 30, 58, 0], [50, 0, 60, 18]), "causal": ([40, 30, 40, 18],) * 2}[name]
    query_segments, key_segments = (jnp.repeat(jnp.array([1, 2, 3, 0]), jnp.array(n))[None] for n in lengths)
    mask = SegmentMask(query_segments, key_segments, causal=name == "causal")
    queries, keys = heads
    clean = [draw(seed, 1, 128, count, 8) for seed, count in enumerate((queries, keys, keys))]
    hidden = [~mask.sees(), mask.key == 0, mask.key == 0]
    dirty = [jnp.where(where[..., None, None], jnp.nan, x) for where, x in zip(hidden, clean, strict=True)]

    def outcome(attend, arrays):
        output, back = jax.vjp(lambda *arrays: attend(*arrays), *arrays)
        return output, *back(output)

    with pltpu.force_tpu_interpret_mode():
        found = outcome(lambda *arrays: flash.tpu_attention(*arrays, mask), dirty)
    expected = outcome(lambda *arrays: dot_product_attention(*arrays, mask.dense()), clean)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert other.any()


@functools.cache
def temporaries(length, attend):
    """Bytes that the compiled gradient of attention holds for itself."""
    query = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
    segments = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def loss(query, segments):
        return attend(query, query, query, SegmentMask(segments, segments, causal=True)).sum()

    return jax.jit(jax.grad(loss)).lower(query, segments).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_linearly_with_the_length_and_all_at_once_with_its_square():
    def whole(query, key, value, mask):
        return dot_product_attention(query, key, value, mask.dense())

    assert temporaries(4096, paths.segment_attention) < 2.1 * temporaries(2048, paths.segment_attention)
    assert temporaries(4096, whole) > 3.5 * temporaries(2048, whole)
    assert temporaries(4096, paths.segment_attention) < temporaries(4096, whole) / 8


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU with cuDNN")
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("queries", "keys", "causal"), [(128, 128, True), (64, 64, True), (192, 192, False), (64, 96, False)]
)
def test_the_kernel_of_cudnn_is_the_reference(queries, keys, causal, groups, packed):
    """Rows of two segments, of one with padding, and of padding alone."""

    def segments(length):
        one = jnp.arange(length) < jnp.array([[length], [length // 3], [0]])
        return one * (1 + (jnp.arange(length)[None] > length // 2) if packed else 1)

    mask = SegmentMask(segments(queries), segments(keys), causal=causal, packed=packed)
    sizes = (queries, 2), (keys, groups), (keys, groups)
    arrays = [draw(seed, 3, *size, 64).astype(jnp.bfloat16) for seed, size in enumerate(sizes)]

    def value_and_gradients(attend):
        def loss(arrays):
            return (attend(*arrays).astype(jnp.float32) ** 2).sum()

        return jax.jit(jax.value_and_grad(loss))(arrays)

    assert flash.cudnn_takes(*arrays[:2], mask)
    value, gradients = value_and_gradients(lambda *arrays: flash.cudnn_attention(*arrays, mask))
    expected, expected_gradients = value_and_gradients(lambda *arrays: dot_product_attention(*arrays, mask.dense()))
    np.testing.assert_allclose(value, expected, rtol=0.02)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one.astype(jnp.float32), other.astype(jnp.float32), atol=0.05)


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason='the TPU compiler is missing: pip install ".[tpu]"'
)
@pytest.mark.parametrize("length", [256, 1024])
def test_a_tpu_runs_its_kernel_for_long_sequences_on_every_device(length):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), topologies.tpus("v5e:2x4"))
    heads, rows = NamedSharding(mesh, P(("data", "fsdp"), None, "tensor")), NamedSharding(mesh, P(("data", "fsdp")))
    array = jax.ShapeDtypeStruct((4, length, 2, 64), jnp.bfloat16, sharding=heads)
    segments = jax.ShapeDtypeStruct((4, length), jnp.int32, sharding=rows)

    def gradient(arrays, segments):
        def loss(arrays):
            mask = SegmentMask(segments, segments, causal=True)
            return paths.segment_attention(*arrays, mask).astype(jnp.float32).sum()

        return jax.grad(loss)(arrays)

    program = jax.jit(on_mesh(mesh, gradient), out_shardings=(heads,) * 3)
    text = program.lower((array,) * 3, segments).compile().as_text()
    assert ("tpu_custom_call" in text) == (length > paths.WHOLE)
    assert not collectives(text)  # each device has its rows and heads
