"""Scaled dot-product attention (3.2.1) as free functions; all weights at once.

Keys and values may have fewer heads than queries, G instead of H: each serves H / G heads of queries that lie side by
side (Ainslie et al., 2023), and is never repeated for them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped


def attention_weights(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    mask: Bool[Array, "#B #H #T S"] | None = None,
    bias: Float[Array, "#B #H #T S"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B H T S"]:
    """softmax(Q K^T * scale + bias) over the keys that the mask allows (3.2.1, equation 1), in float32 at least.

    Args:
        query: one vector for each position and head.
        key: one vector for each place that may be attended to.
        mask: True = may attend. A query that may attend to nothing gets weights of zero.
        bias: added to the scaled products.
        scale: 1 / sqrt(d_k) where None.
    """
    return masked_softmax(scaled_products(query, key, scale), mask, bias)


def scaled_products(
    query: Float[Array, "B T H K"], key: Float[Array, "B S G K"], scale: float | None = None
) -> Float[Array, "B H T S"]:
    """Q K^T * scale, in float32 at least; the scale is 1 / sqrt(d_k) where None."""
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    exact, heads, groups = jnp.promote_types(query.dtype, jnp.float32), query.shape[2], key.shape[2]
    if heads == groups:
        return jnp.einsum("BTHK,BSHK->BHTS", query, key, preferred_element_type=exact)
    grouped = query.reshape(*query.shape[:2], groups, heads // groups, query.shape[3])
    products = jnp.einsum("BTGhK,BSGK->BGhTS", grouped, key, preferred_element_type=exact)
    return products.reshape(query.shape[0], heads, *products.shape[3:])


def masked_softmax(
    products: Float[Array, "B H T S"],
    mask: Bool[Array, "#B #H #T S"] | None = None,
    bias: Float[Array, "#B #H #T S"] | None = None,
) -> Float[Array, "B H T S"]:
    """softmax(products + bias) over the places that the mask allows; all zeros where it allows none."""
    logits = products if bias is None else products + bias
    if mask is None:
        return jax.nn.softmax(logits)
    weights = jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(logits.dtype).min))
    return jnp.where(mask, weights, 0.0)


def mix_values(weights: Float[Array, "B H T S"], value: Float[Array, "B S G K"]) -> Float[Array, "B T H K"]:
    """The values, summed by their weights for each query and head."""
    # Straight to BTHK, einsum makes a product of value and weights, which XLA on a CPU takes up to 7 times as long for.
    weights, heads, groups = weights.astype(value.dtype), weights.shape[1], value.shape[2]
    if heads == groups:
        return jnp.einsum("BHTS,BSHK->BHTK", weights, value).swapaxes(1, 2)
    grouped = weights.reshape(weights.shape[0], groups, heads // groups, *weights.shape[2:])
    mixed = jnp.einsum("BGhTS,BSGK->BGhTK", grouped, value)
    return mixed.reshape(weights.shape[0], heads, *mixed.shape[3:]).swapaxes(1, 2)


def for_each_head(x: Shaped[Array, "..."], heads: int, axis: int) -> Shaped[Array, "..."]:
    """What keys or values have, repeated for all heads of queries that they serve."""
    groups = x.shape[axis]
    return x if groups == heads else jnp.repeat(x, heads // groups, axis)


def dot_product_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    value: Float[Array, "B S G K"],
    mask: Bool[Array, "#B #H #T S"] | None = None,
    bias: Float[Array, "#B #H #T S"] | None = None,
    scale: float | None = None,
    drop: Callable[[Array], Array] | None = None,
) -> Float[Array, "B T H K"]:
    """softmax(Q K^T / sqrt(d_k)) V (3.2.1, equation 1).

    A query that may attend to nothing gets zeros. What the mask hides is as if it were not there: neither a gradient
    nor a NaN or infinity passes through it.

    Args:
        query: one vector for each position and head.
        key: one vector for each place that may be attended to.
        value: what those places give.
        mask: True = may attend.
        bias: added to the scaled products.
        scale: 1 / sqrt(d_k) where None.
        drop: what becomes of the weights [B H T S] before they mix the values; dropout, say.
    """
    query, key, value, bias = shield(query, key, value, mask, bias)
    weights = attention_weights(query, key, mask, bias, scale)
    return mix_values(weights if drop is None else drop(weights), value)


def shield(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    value: Float[Array, "B S G K"],
    mask: Bool[Array, "#B #H #T S"] | None,
    bias: Float[Array, "#B #H #T S"] | None,
) -> tuple[Array, Array, Array, Array | None]:
    """Query, key and value without what would leak through a product with zero, and the bias that makes up for it.

    A product turns 0 * NaN into NaN. So places that are not finite become zero, and a bias of NaN gives them back to
    the queries that do see them; queries that see nothing become zero.
    """
    if mask is None:
        return query, key, value, bias
    finite = jnp.isfinite(key).all(-1) & jnp.isfinite(value).all(-1)  # -> [B S G]
    key, value = (jnp.where(finite[..., None], x, 0) for x in (key, value))
    sees = jnp.swapaxes(mask.any(-1), 1, 2)[..., None]  # -> [B T H 1]
    query = jnp.where(sees, query, 0)
    poison = jnp.where(finite, 0.0, jnp.nan).swapaxes(1, 2)[:, :, None]  # -> [B G 1 S]
    poison = for_each_head(poison, query.shape[2], axis=1)  # -> [B H 1 S]
    return query, key, value, poison if bias is None else bias + poison
