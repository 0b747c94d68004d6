"""Attention a block of queries after the other, so that its memory grows with the length and not with its square."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer_jax.attention.dot_product import dot_product_attention
from transformer_jax.masks import SegmentMask

BLOCK = 256  # queries


def blockwise_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    value: Float[Array, "B S G K"],
    mask: SegmentMask,
    drop: Callable[[Float[Array, "B H t S"], Int[Array, ""]], Array] | None = None,
    block: int = BLOCK,
) -> Float[Array, "B T H K"]:
    """What `dot_product_attention` gives, where only the weights of one block of queries exist at a time.

    The backward pass computes them again (Rabe and Staats, 2021; a block here sees all keys, so that its softmax is
    the plain one).

    Args:
        query: one vector for each position and head.
        key: one vector for each place that may be attended to.
        value: what those places give.
        mask: who may attend to whom.
        drop: what becomes of the weights of a block before they mix the values, by the place of its first query.
        block: queries of a block; the last one is filled up.
    """
    batch, length = query.shape[:2]
    count = -(-length // block)

    def cut(x: Array) -> Array:  # [B T ...] -> [N B t ...]
        padding = ((0, 0), (0, count * block - length), *((0, 0),) * (x.ndim - 2))
        return jnp.pad(x, padding).reshape(x.shape[0], count, block, *x.shape[2:]).swapaxes(0, 1)

    @functools.partial(jax.checkpoint, prevent_cse=False)  # a loop is no place where that could happen
    def attend(part: tuple[Array, Array, Array]) -> Float[Array, "B t H K"]:
        query, segments, first = part
        dropped = None if drop is None else lambda weights: drop(weights, first)
        return dot_product_attention(query, key, value, mask.rows(segments, first), drop=dropped)

    blocks = jax.lax.map(attend, (cut(query), cut(mask.query), block * jnp.arange(count)))
    return blocks.swapaxes(0, 1).reshape(batch, count * block, *query.shape[2:])[:, :length]
