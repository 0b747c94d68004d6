"""The linear projection, and what a loss needs of products with all words."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import projection
from transformer_jax.config import MeshConfig
from transformer_jax.programs import flops_of
from transformer_jax.projection import (
    LogitSums,
    Projection,
    product,
    transpose_kernels,
    vocabulary_products,
    vocabulary_sums,
)
from transformer_jax.sharding import make_mesh, on_mesh


def test_it_is_x_times_kernel_plus_bias():
    params = {"kernel": jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "bias": jnp.array([0.5, 0.0, -1.0])}
    x = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, -1.0]]])
    y = Projection(3, ("width", "ffn"), use_bias=True).apply({"params": params}, x)
    np.testing.assert_array_equal(y, [[[1.5, 2, 2], [4.5, 5, 5]], [[5.5, 7, 8], [-1.5, -1, -1]]])


def test_the_kernel_is_glorot_uniform_and_the_bias_zero():
    module = Projection(300, ("width", "ffn"), use_bias=True)
    params = nn.meta.unbox(module.init(jax.random.key(0), jnp.ones((1, 700))))["params"]
    kernel, bias = params["kernel"], params["bias"]
    bound = (6 / (700 + 300)) ** 0.5
    assert kernel.shape == (700, 300)
    assert 0.99 * bound < jnp.abs(kernel).max() <= bound
    assert abs(float(kernel.var()) / (bound**2 / 3) - 1) < 0.02  # 5 deviations of 210,000 draws
    assert not bias.any()


def test_the_product_is_in_the_given_dtype_and_the_parameters_in_float32():
    module = Projection(2, ("width", "ffn"), dtype="bfloat16")
    x = jnp.ones((3, 5))
    params = module.init(jax.random.key(0), x)
    assert module.apply(params, x).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_the_product_has_the_derivatives_of_a_product_forwards_and_backwards():
    x, kernel, dx, dkernel = (
        jax.random.normal(jax.random.key(seed), shape) for seed, shape in enumerate([(5, 7), (7, 3)] * 2)
    )

    def curved(multiply):
        return lambda x, kernel: jnp.tanh(multiply(x, kernel)).sum()

    def derivatives(multiply):
        gradient = jax.grad(curved(multiply), argnums=(0, 1))
        forwards = jax.jvp(multiply, (x, kernel), (dx, dkernel))
        twice = jax.jvp(gradient, (x, kernel), (dx, dkernel))  # a second derivative, along one direction
        return forwards, gradient(x, kernel), twice

    ours, plain = derivatives(product), derivatives(jnp.matmul)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, plain)
    np.testing.assert_allclose(ours[0][1], dx @ kernel + x @ dkernel, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("features", [3, 6])  # odd ones are computed whole, even ones in halves
def test_transposed_kernels_give_the_same_for_one_row_and_for_several(features):
    module = Projection(features, ("width", "ffn"), use_bias=True)
    params = nn.meta.unbox(module.init(jax.random.key(0), jnp.ones((1, 5))))["params"]
    params["bias"] += jnp.arange(float(features))
    transposed = transpose_kernels({"inner": params}, "float32")["inner"]
    assert {name: leaf.shape for name, leaf in transposed.items()} == {"transposed": (features, 5), "bias": (features,)}
    for rows in (1, 2):
        x = jax.random.normal(jax.random.key(rows), (rows, 5))
        expected = module.apply({"params": params}, x)
        np.testing.assert_allclose(module.apply({"params": transposed}, x), expected, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 70])
def test_on_a_cpu_products_with_a_transposed_kernel_in_bfloat16_have_sums_in_float32(rows):
    """With sums in bfloat16 they take twice the time."""
    x, transposed = jnp.ones((rows, 3)), jnp.ones((2, 3), jnp.bfloat16)
    project = jax.jit(lambda *arrays: Projection(2, ("width", "ffn"), dtype="bfloat16").apply(*arrays))
    text = project.lower({"params": {"transposed": transposed}}, x).as_text()
    assert f"(tensor<{rows}x3xbf16>, tensor<2x3xbf16>) -> tensor<{rows}x2xf32>" in text
    assert project({"params": {"transposed": transposed}}, x).dtype == jnp.bfloat16


def test_on_a_cpu_the_gradient_of_the_kernel_reads_a_transposed_copy_row_by_row():
    """Of [N I] times [N O], contracted over rows, XLA's CPU products run at half their speed."""
    x, kernel = jnp.ones((64, 128)), jnp.ones((128, 256))
    gradient = jax.jit(jax.grad(lambda kernel, x: jnp.square(product(x, kernel)).sum()))
    text = gradient.lower(kernel, x).compile().as_text()
    assert "lhs_contracting_dims={1}, rhs_contracting_dims={0}" in text
    assert "lhs_contracting_dims={0}" not in text


class TestVocabularySums:
    places, words, width = (2, 3), 11, 5
    x = jax.random.normal(jax.random.key(0), (*places, width))
    table, bias = jax.random.normal(jax.random.key(1), (words, width)), jnp.linspace(-1.0, 1.0, words)
    targets = jnp.array([[0, 10, 4], [7, 3, 3]])

    def of_all(self, x, table, bias):
        logits = vocabulary_products(x, table)
        return LogitSums.of(logits if bias is None else logits + bias[None, None], self.targets)

    def test_by_hand(self):
        found = LogitSums.of(jnp.log(jnp.array([[1.0, 3.0, 4.0]])), jnp.array([2]))
        np.testing.assert_allclose(found, [[math.log(8)], [math.log(4)], [math.log(12)], [math.log(4)]], rtol=1e-6)

    @pytest.mark.parametrize("blocks", [1, 4])
    def test_features_in_bfloat16_are_summed_in_float32(self, blocks, monkeypatch):
        monkeypatch.setattr(projection, "LARGEST", -(-4 * 6 * self.words // blocks))
        rounded = self.x.astype(jnp.bfloat16)
        found = vocabulary_sums(rounded, self.table, self.targets)
        table = self.table.astype(jnp.bfloat16).astype(jnp.float32)
        for one, other in zip(found, self.of_all(rounded.astype(jnp.float32), table, None), strict=True):
            assert one.dtype == jnp.float32
            np.testing.assert_allclose(one, other, atol=1e-5)

    @pytest.mark.parametrize("blocks", [1, 2, 4, 11])
    @pytest.mark.parametrize("with_bias", [True, False])
    def test_in_blocks_they_are_those_of_all_logits_and_so_are_their_gradients(self, blocks, with_bias, monkeypatch):
        monkeypatch.setattr(projection, "LARGEST", -(-4 * 6 * self.words // blocks))
        bias = self.bias if with_bias else None
        arrays = self.x, self.table, *([bias] if with_bias else [])
        found = vocabulary_sums(self.x, self.table, self.targets, bias)
        for one, other in zip(found, self.of_all(self.x, self.table, bias), strict=True):
            assert one.shape == self.places
            np.testing.assert_allclose(one, other, atol=1e-5)

        def loss(sums):
            return (sums.normaliser - 0.9 * sums.target - 0.1 * sums.total / self.words).sum()

        def by_blocks(x, table, bias=None):
            return loss(vocabulary_sums(x, table, self.targets, bias))

        gradients = jax.grad(by_blocks, argnums=range(len(arrays)))(*arrays)
        expected = jax.grad(lambda x, table, bias=None: loss(self.of_all(x, table, bias)), range(len(arrays)))(*arrays)
        for one, other in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
            assert other.any()

    def test_one_block_is_in_memory_at_a_time(self, monkeypatch):
        x, table = jax.ShapeDtypeStruct((1, 600, 7), jnp.float32), jax.ShapeDtypeStruct((1997, 7), jnp.float32)
        targets = jnp.zeros((1, 600), int)

        def loss(x, table):
            sums = vocabulary_sums(x, table, targets)
            return (sums.normaliser - sums.target).sum()

        def temporaries(blocks):
            monkeypatch.setattr(projection, "LARGEST", -(-4 * 600 * 1997 // blocks))
            gradient = jax.jit(jax.grad(lambda *arrays: loss(*arrays), argnums=(0, 1)))
            return gradient.lower(x, table).compile().memory_analysis().temp_size_in_bytes

        assert temporaries(8) < temporaries(1) / 3

    def test_only_what_takes_too_much_memory_is_computed_again(self, monkeypatch):
        mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=1), jax.devices()[:2])

        def products(largest):
            monkeypatch.setattr(projection, "LARGEST", largest)

            def loss(x, table):
                return vocabulary_sums(x, table, self.targets).normaliser.sum()

            gradient = jax.make_jaxpr(on_mesh(mesh, jax.grad(loss, argnums=(0, 1))))(self.x, self.table)
            return flops_of(gradient.jaxpr) / (2 * 6 * self.width * self.words)

        held = 4 * 6 // 2 * self.words + 4 * self.words * self.width  # a device's logits, and the table
        assert (products(held), products(held - 1)) == (3, 4)
