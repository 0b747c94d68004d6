"""The linear projection that attention, feed-forward network and output are made of."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer_jax.sharding import parameter, pieces

VOCABULARY_BLOCKS = 4  # of a table of 37,000 rows, a block is about the size of a layer of the same width


class Projection(nn.Module):
    """x W, with a bias by choice; the kernel is Glorot-uniform and two-dimensional.

    Leading axes are flattened before the product: on a CPU the gradient of a two-dimensional operand takes the fast
    path of XLA, and a kernel [D, H*K] can be split between heads.

    Given a parameter "transposed" [out, in] instead of "kernel" [in, out] it computes the same: of a few rows, as in
    decoding, the product with a kernel that is not in the processor's cache is up to twice as fast that way.
    """

    features: int
    axes: tuple[str, str]  # logical names of the kernel's two axes
    use_bias: bool = False
    dtype: str = "float32"  # of the product; the kernel itself is float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        """[..., in] to [..., features]."""
        width, (into, out) = x.shape[-1], self.axes
        flat = x.astype(self.dtype).reshape(-1, width)
        if self.has_variable("params", "transposed"):
            y = transposed_product(flat, self.get_variable("params", "transposed").astype(self.dtype))  # -> [B*T, O]
        else:
            sizes = {into: width, out: self.features}
            kernel = parameter(self, "kernel", nn.initializers.xavier_uniform(), **sizes)
            y = product(flat, kernel.astype(self.dtype))  # -> [B*T, O]
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, **{out: self.features})
            y = y + bias.astype(self.dtype)[None]
        return y.reshape(*x.shape[:-1], self.features)


def transposed_product(
    x: Float[Array, "N I"], transposed: Float[Array, "O I"], sums: Any = None
) -> Float[Array, "N O"]:
    """The product x W, given W^T; fast also for a few rows; `sums` is the dtype of the result, None that of x.

    A product with one axis of outputs packs all of W^T anew at every call, XLA on a CPU; with two axes it does not,
    which up to 32 rows takes about half the time, and no more beyond.
    """

    def in_halves(x: Float[Array, "N I"], transposed: Float[Array, "O I"]) -> Float[Array, "N O"]:
        halves = transposed.reshape(2, -1, transposed.shape[1])
        products = jnp.einsum("NI,BOI->BNO", x, halves, preferred_element_type=sums)
        return products.swapaxes(0, 1).reshape(-1, transposed.shape[0])

    def whole(x: Float[Array, "N I"], transposed: Float[Array, "O I"]) -> Float[Array, "N O"]:
        return jnp.einsum("NI,OI->NO", x, transposed, preferred_element_type=sums)

    if transposed.shape[0] % 2:
        return whole(x, transposed)
    return jax.lax.platform_dependent(x, transposed, cpu=in_halves, default=whole)


def transpose_kernels(params: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The parameters of a module with every kernel of a `Projection` in it transposed, and in this dtype."""
    changed = {}
    for name, value in params.items():
        if name == "kernel":
            changed["transposed"] = value.T.astype(dtype)
        else:
            changed[name] = transpose_kernels(value, dtype) if isinstance(value, dict) else value
    return changed


@jax.custom_jvp
def product(x: Float[Array, "N I"], kernel: Float[Array, "I O"]) -> Float[Array, "N O"]:
    """The product x W, of which the gradient by W is as fast on a CPU as the product itself.

    It is x^T times a gradient, which XLA computes at half its speed there unless x^T lies in memory row by row.
    """
    return x @ kernel


@product.defjvp
def _product_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    (x, kernel), (x_tangent, kernel_tangent) = primals, tangents
    transposed = jax.lax.platform_dependent(x.T, cpu=jax.lax.optimization_barrier, default=lambda xt: xt)  # -> [I N]
    along_kernel = jax.lax.dot_general(transposed, kernel_tangent, (((0,), (0,)), ((), ())))
    return x @ kernel, x_tangent @ kernel + along_kernel  # a plain product, by which `remat` knows it


class VocabularyProjection(nn.Module):
    """x W to logits, by a matrix [D, V] that no embedding shares."""

    vocab_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Features to logits, in float32 at least."""
        sizes = {"width": x.shape[-1], "vocab": self.vocab_size}
        return vocabulary_products(x, parameter(self, "kernel", nn.initializers.xavier_uniform(), **sizes).T)


def vocabulary_products(x: Float[Array, "*batch D"], table: Float[Array, "V D"]) -> Float[Array, "*batch V"]:
    """The products of each vector with every row of the table, in float32 at least.

    Where devices share the columns of a table but not its rows, each of them needs all of it: it is gathered a block of
    rows at a time, and again in the backward pass, so that no device ever holds the whole.
    """
    exact = jnp.promote_types(x.dtype, jnp.float32)

    def product(flat: Float[Array, "N D"], rows: Float[Array, "R D"]) -> Float[Array, "N R"]:
        return jnp.einsum("ND,RD->NR", flat, rows.astype(x.dtype), preferred_element_type=exact)

    flat = x.reshape(-1, x.shape[-1])
    if pieces("width") > 1 and pieces("vocab") == 1:
        blocks = jnp.array_split(table, VOCABULARY_BLOCKS)
        products = jnp.concatenate([jax.checkpoint(product)(flat, rows) for rows in blocks], axis=1)
    elif x.shape[-2:-1] == (1,):  # of the next token alone: a few rows
        products = transposed_product(flat, table.astype(x.dtype), exact)
    else:
        products = product(flat, table)
    return products.reshape(*x.shape[:-1], -1)
