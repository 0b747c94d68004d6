"""The linear projection that attention, feed-forward network and output are made of."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer_jax.sharding import parameter, pieces

LARGEST = 2**30  # bytes that a device may hold of logits, and of a table gathered for them
FEWEST = 4  # blocks of a table that is gathered: of 37,000 rows, one is about the size of a layer of the same width
FEW = 64  # rows of a product in float32, up to which a transposed kernel pays in parts on a CPU


class Projection(nn.Module):
    """x W, with a bias by choice; the kernel is Glorot-uniform and two-dimensional.

    Leading axes are flattened before the product: on a CPU the gradient of a two-dimensional operand takes the fast
    path of XLA, and a kernel [D, H*K] can be split between heads.

    Given a parameter "transposed" [out, in] instead of "kernel" [in, out] it computes the same: of a few rows, as in
    decoding, the product with a kernel that is not in the processor's cache is up to twice as fast that way, and in
    bfloat16 so is that of many (see `transposed_product`).
    """

    features: int
    axes: tuple[str, str]  # logical names of the kernel's two axes
    use_bias: bool = False
    dtype: str = "float32"  # of the product; the kernel itself is float32
    rank: int = 0  # of an adapter (Hu et al., 2021): x A B is added, with A [in, rank] and B [rank, out]
    scale: float = 1.0  # of what the adapter gives

    @nn.compact
    def __call__(self, x: Float[Array, "*places I"]) -> Float[Array, "*places O"]:
        """[..., in] to [..., features]."""
        width, (into, out) = x.shape[-1], self.axes
        flat = x.astype(self.dtype).reshape(-1, width)
        if self.has_variable("params", "transposed"):
            y = transposed_product(flat, self.get_variable("params", "transposed").astype(self.dtype))  # -> [B*T, O]
        else:
            sizes = {into: width, out: self.features}
            kernel = parameter(self, "kernel", nn.initializers.xavier_uniform(), **sizes)
            y = product(flat, kernel.astype(self.dtype))  # -> [B*T, O]
        if self.rank:
            y = y + self.scale * self._adapted(flat)
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, **{out: self.features})
            y = y + bias.astype(self.dtype)[None]
        return y.reshape(*x.shape[:-1], self.features)

    def _adapted(self, flat: Float[Array, "N I"]) -> Float[Array, "N O"]:
        into, out = self.axes
        first = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        down = parameter(self, "lora_a", first, **{into: flat.shape[-1], "rank": self.rank})
        up = parameter(self, "lora_b", nn.initializers.zeros, rank=self.rank, **{out: self.features})
        return product(product(flat, down.astype(self.dtype)), up.astype(self.dtype))


def transposed_product(
    x: Float[Array, "N I"], transposed: Float[Array, "O I"], sums: Any = None
) -> Float[Array, "N O"]:
    """The product x W, given W^T; fast also for a few rows; `sums` is the dtype of the result, None that of x.

    On a CPU, XLA packs all of W^T anew at every product with one axis of outputs; in float32 two axes spare that, which
    takes about half the time for 16 rows, and a tenth more for 256. In bfloat16 its products take half the time of
    those in float32 where the sums are float32, and no less where they are rounded at once.
    """
    sums, exact = x.dtype if sums is None else sums, _exact(x)
    rows = x.shape[0]  # any number of them where a program is exported
    few = x.dtype == exact and not (isinstance(rows, int) and rows > FEW)
    blocks = math.gcd(4, transposed.shape[0]) if few else 1

    def whole(x: Float[Array, "N I"], transposed: Float[Array, "O I"], sums: Any = sums) -> Float[Array, "N O"]:
        return jnp.einsum("NI,OI->NO", x, transposed, preferred_element_type=sums)

    def rounded_last(x: Float[Array, "N I"], transposed: Float[Array, "O I"]) -> Float[Array, "N O"]:
        return whole(x, transposed, exact).astype(sums)

    def in_blocks(x: Float[Array, "N I"], transposed: Float[Array, "O I"]) -> Float[Array, "N O"]:
        parts = transposed.reshape(blocks, -1, transposed.shape[1])
        products = jnp.einsum("NI,BOI->BNO", x, parts, preferred_element_type=sums)
        return products.swapaxes(0, 1).reshape(-1, transposed.shape[0])

    if blocks == 1 and sums == exact:
        return whole(x, transposed)
    return jax.lax.platform_dependent(x, transposed, cpu=in_blocks if blocks > 1 else rounded_last, default=whole)


def transpose_kernels(params: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The parameters of a module with every kernel of a `Projection` in it transposed, and in this dtype.

    They may be those of several modules, stacked on leading axes.
    """
    changed = {}
    for name, value in params.items():
        if name == "kernel":
            changed["transposed"] = value.swapaxes(-2, -1).astype(dtype)
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
    width: int

    def setup(self) -> None:
        """One matrix [D, V]."""
        sizes = {"width": self.width, "vocab": self.vocab_size}
        self.kernel = parameter(self, "kernel", nn.initializers.xavier_uniform(), **sizes)

    def logits(self, x: Float[Array, "*places D"]) -> Float[Array, "*places V"]:
        """Features to logits, in float32 at least."""
        return vocabulary_products(x, self.kernel.T)

    def logit_sums(
        self, x: Float[Array, "*places D"], targets: Int[Array, "*places"], bias: Float[Array, " V"] | None
    ) -> "LogitSums":
        """What a loss needs of the logits."""
        return vocabulary_sums(x, self.kernel.T, targets, bias)


def vocabulary_products(x: Float[Array, "*places D"], table: Float[Array, "V D"]) -> Float[Array, "*places V"]:
    """The products of each vector with every row of the table, in float32 at least."""
    flat = x.reshape(-1, x.shape[-1])
    if x.shape[-2:-1] == (1,):  # of the next token alone: a few rows
        products = transposed_product(flat, table.astype(x.dtype), _exact(x))
    else:
        products = _products(flat, table)
    return products.reshape(*x.shape[:-1], -1)


class LogitSums(NamedTuple):
    """What a loss needs of the logits z of each place."""

    normaliser: Float[Array, "*places"]  # logsumexp z
    target: Float[Array, "*places"]  # z[target]
    total: Float[Array, "*places"]  # sum z
    largest: Float[Array, "*places"]  # max z

    @staticmethod
    def of(
        logits: Float[Array, "*places R"], targets: Int[Array, "*places"], first: int | Int[Array, ""] = 0
    ) -> "LogitSums":
        """Those of some words side by side, the first of which has this id; another target's logit counts as 0."""
        place = targets - first
        inside = (place >= 0) & (place < logits.shape[-1])
        target = jnp.take_along_axis(logits, jnp.where(inside, place, 0)[..., None], axis=-1)[..., 0]
        target, largest = jnp.where(inside, target, 0.0), jax.lax.stop_gradient(logits.max(-1))
        return LogitSums(jax.nn.logsumexp(logits, axis=-1), target, logits.sum(-1), largest)


def vocabulary_sums(
    x: Float[Array, "*places D"],
    table: Float[Array, "V D"],
    targets: Int[Array, "*places"],
    bias: Float[Array, " V"] | None = None,
) -> LogitSums:
    """`LogitSums` of `vocabulary_products` and a bias.

    Logits that would take more than `LARGEST` bytes of a device are computed a block of words at a time, and again in
    the backward pass. Where devices share the columns of the table but not its rows, each of them needs all of it, and
    gathers it a block at a time; the backward pass gathers and computes a block again if all of them and the logits
    take more than that. Where devices share the rows, each has its own words only, in one block.
    """
    flat, flat_targets = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    blocks, again = _blocks(flat, len(table))

    def sums(rows: Float[Array, "R D"], bias: Float[Array, " R"] | None, first: Int[Array, ""]) -> LogitSums:
        logits = _products(flat, rows)
        return LogitSums.of(logits if bias is None else logits + bias[None], flat_targets, first)

    if blocks == 1:
        found = sums(table, bias, jnp.int32(0))
    else:
        of_block = jax.checkpoint(sums) if again else sums
        found = _joined(_in_blocks(of_block, table, bias, -(-len(table) // blocks)))
    return LogitSums(*(part.reshape(targets.shape) for part in found))


def _in_blocks(
    sums: Callable[..., LogitSums], table: Float[Array, "V D"], bias: Float[Array, " V"] | None, size: int
) -> LogitSums:
    """The sums of each block of so many words, [blocks N], one after the other; the last one may be smaller."""
    whole, covered = len(table) // size, len(table) // size * size

    def cut(x: Array) -> Array:
        return x[:covered].reshape(whole, size, *x.shape[1:])

    blocks = cut(table), None if bias is None else cut(bias), size * jnp.arange(whole)
    # Unrolled, what is gathered for a block travels while another one is computed.
    unroll = whole if pieces("width") > 1 else 1
    _, found = jax.lax.scan(lambda _, block: (None, sums(*block)), None, blocks, unroll=unroll)
    if covered == len(table):
        return found
    rest = sums(table[covered:], None if bias is None else bias[covered:], jnp.int32(covered))
    return LogitSums(*(jnp.concatenate([part, last[None]]) for part, last in zip(found, rest, strict=True)))


def _joined(blocks: LogitSums) -> LogitSums:
    """The sums over all words, of those over blocks of them."""
    normaliser, largest = jax.nn.logsumexp(blocks.normaliser, axis=0), blocks.largest.max(0)
    return LogitSums(normaliser, blocks.target.sum(0), blocks.total.sum(0), largest)


def _blocks(flat: Float[Array, "N D"], words: int) -> tuple[int, bool]:
    """Into how many blocks words are cut; whether the backward pass computes them again, rather than keep them all."""
    if pieces("vocab") > 1:  # its blocks would lie on one device each
        return 1, False
    logits = -(-4 * len(flat) * words // pieces("batch"))
    gathered = flat.dtype.itemsize * words * flat.shape[-1] if pieces("width") > 1 else 0
    return max(-(-logits // LARGEST), FEWEST if gathered else 1), logits + gathered > LARGEST


def _products(flat: Float[Array, "N D"], rows: Float[Array, "R D"]) -> Float[Array, "N R"]:
    return jnp.einsum("ND,RD->NR", flat, rows.astype(flat.dtype), preferred_element_type=_exact(flat))


def _exact(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)
