"""Attention masks, made once at the top of the model: boolean, True = may attend, shaped [B 1 T S]."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def causal_mask(length: int) -> Bool[Array, "1 1 {length} {length}"]:
    """A position attends to itself and to what stands before it (3.2.3)."""
    place = jnp.arange(length)
    return (place[:, None] >= place[None, :])[None, None]


def segment_mask(query_segments: Int[Array, "B T"], key_segments: Int[Array, "B S"]) -> Bool[Array, "B 1 T S"]:
    """A position attends within its own segment; segment 0 is padding, which neither attends nor is attended to."""
    same = query_segments[:, :, None] == key_segments[:, None, :]
    return (same & (query_segments > 0)[:, :, None])[:, None]


def cache_mask(positions: Int[Array, "B T"], capacity: int) -> Bool[Array, "B 1 T {capacity}"]:
    """A query at a position attends to the entries of a key/value cache written up to and with that position."""
    return (jnp.arange(capacity)[None, None, :] <= positions[:, :, None])[:, None]
