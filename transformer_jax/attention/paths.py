"""Which way attention within segments is computed: by length, dtype and the platform that is compiled for."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from transformer_jax.attention import flash
from transformer_jax.attention.blockwise import blockwise_attention
from transformer_jax.attention.dot_product import dot_product_attention
from transformer_jax.dropout import Within, dropout
from transformer_jax.masks import SegmentMask

# Queries up to which all weights are held at once. The gradient of 1,024, one row of 8 heads of 64, takes a CPU 0.20 s
# and 45 MiB in blocks, 0.16 s and 130 MiB at once; of 4,096 3.2 s and 177 MiB, 3.3 s and 2,056 MiB.
WHOLE = 512


def segment_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    value: Float[Array, "B S G K"],
    mask: SegmentMask,
    rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "B T H K"]:
    """`dot_product_attention` with the mask's booleans, by the fastest way that there is; dropout where a key is given.

    On a GPU it is cuDNN's kernel where that takes the shapes, on a TPU Pallas' for long sequences; neither drops
    weights, so with attention dropout, and elsewhere, XLA computes it: long sequences a block of queries at a time.
    """
    whole = query.shape[1] <= WHOLE

    def by_xla(query: Array, key: Array, value: Array, mask: SegmentMask) -> Array:
        def drop(weights: Array, first: Any = 0) -> Array:
            within = Within(axis=2, size=query.shape[1], first=first)
            return weights if dropout_key is None else dropout(weights, rate, dropout_key, within)

        if whole:
            return dot_product_attention(query, key, value, mask.dense(), drop=drop)
        return blockwise_attention(query, key, value, mask, drop)

    kernels: dict[str, Callable[..., Array]] = {}
    if dropout_key is None and flash.cudnn_takes(query, key, mask):
        kernels["cuda"] = flash.cudnn_attention
    if dropout_key is None and not whole and flash.tpu_takes(query, key):
        kernels["tpu"] = flash.tpu_attention
    if not kernels:
        return by_xla(query, key, value, mask)
    return jax.lax.platform_dependent(query, key, value, mask, **kernels, default=by_xla)
