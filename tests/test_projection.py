"""The linear projection."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.projection import Projection, product, transpose_kernels


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


def test_on_a_cpu_the_gradient_of_the_kernel_reads_a_transposed_copy_row_by_row():
    """Of [N I] times [N O], contracted over rows, XLA's CPU products run at half their speed."""
    x, kernel = jnp.ones((64, 128)), jnp.ones((128, 256))
    gradient = jax.jit(jax.grad(lambda kernel, x: jnp.square(product(x, kernel)).sum()))
    text = gradient.lower(kernel, x).compile().as_text()
    assert "lhs_contracting_dims={1}, rhs_contracting_dims={0}" in text
    assert "lhs_contracting_dims={0}" not in text
