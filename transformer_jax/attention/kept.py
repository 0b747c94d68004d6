"""Attention over keys and values that are kept between the steps of decoding."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer_jax.attention.cache import Held, KeyValue, Memory
from transformer_jax.attention.dot_product import attention_weights, mix_values, scaled_products, softmax_where

BLOCK = 4  # places; of 64 sentences and a beam of 4, of 32 tokens, one of 2 or 8 takes 1% more


def kept_attention(
    query: Float[Array, "B T H K"],
    kept: Held | KeyValue | Memory,
    mask: Bool[Array, "#B #H #T S"] | None = None,
    bias: Float[Array, "#B #H #T S"] | None = None,
    scale: float | None = None,
) -> tuple[Float[Array, "B T H K"], Float[Array, "B H T S"]]:
    """softmax(Q K^T * scale + bias) V, and the weights, as in `dot_product_attention`, but without its shield.

    Args:
        query: one vector for each position and head.
        kept: keys and values; of a place that the mask hides they must be finite, too.
        mask: True = may attend. It hides the places behind the longest hypothesis.
        bias: added to the scaled products.
        scale: 1 / sqrt(d_k) where None.
    """
    in_blocks, whole = (functools.partial(attend, scale=scale) for attend in (_in_blocks, _whole))
    if isinstance(kept, Held) and kept.beams > 1:
        return jax.lax.platform_dependent(query, kept, mask, bias, cpu=in_blocks, default=whole)
    return whole(query, kept, mask, bias)


def _whole(
    query: Float[Array, "B T H K"],
    kept: Held | KeyValue | Memory,
    mask: Bool[Array, "#B #H #T S"] | None,
    bias: Float[Array, "#B #H #T S"] | None,
    scale: float | None,
) -> tuple[Float[Array, "B T H K"], Float[Array, "B H T S"]]:
    key, value = kept.entries()
    weights = attention_weights(query, key, mask, bias, scale)
    return mix_values(weights, value), weights


def _in_blocks(
    query: Float[Array, "B T H K"],
    held: Held,
    mask: Bool[Array, "#B #H #T S"],
    bias: Float[Array, "#B #H #T S"] | None,
    scale: float | None,
) -> tuple[Float[Array, "B T H K"], Float[Array, "B H T S"]]:
    """Reads no more blocks than the longest hypothesis has; those behind have no weight, so no bit depends on them.

    What is found of a block stays in a CPU's cache: of 64 sentences and a beam of 4 up to 32 tokens, decoding takes
    5.8 s for 6.3 s when all that is held is found first.
    """
    places = mask.shape[-1]
    size = min(BLOCK, places)
    blocks = jnp.minimum(-(-held.longest // size), -(-places // size))

    def multiply(block: Int[Array, ""], products: Float[Array, "B H T S"]) -> Float[Array, "B H T S"]:
        key, _ = held.block(block * size, size)
        return jax.lax.dynamic_update_slice_in_dim(products, scaled_products(query, key, scale), block * size, axis=3)

    def mix(block: Int[Array, ""], mixed: Float[Array, "B T H K"]) -> Float[Array, "B T H K"]:
        _, value = held.block(block * size, size)
        start = jnp.minimum(block * size, places - size)  # the last block may begin within the one before
        new = start + jnp.arange(size) >= block * size
        some = jax.lax.dynamic_slice_in_dim(weights, start, size, axis=3)
        return mixed + mix_values(jnp.where(new, some, 0.0), value.astype(exact))

    exact = jnp.promote_types(query.dtype, jnp.float32)
    nothing = jnp.zeros((query.shape[0], query.shape[2], query.shape[1], places), exact)
    weights = softmax_where(mask, jax.lax.fori_loop(0, blocks, multiply, nothing), bias)
    mixed = jax.lax.fori_loop(0, blocks, mix, jnp.zeros(query.shape, exact))
    return mixed.astype(query.dtype), weights
