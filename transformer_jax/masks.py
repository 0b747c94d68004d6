"""Attention masks, made once at the top of the model: True = may attend, shaped [B 1 T S], or segments that tell it."""

from typing import no_type_check

import flax.struct
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


@no_type_check  # of the fields: as a tree it holds shapes and shardings, too
@flax.struct.dataclass
class SegmentMask:
    """A `segment_mask`, and a causal one too where `causal`, as T + S numbers instead of T * S booleans.

    Long sequences need it so, and kernels for accelerators take it so.

    Attributes:
        query: segments of the queries.
        key: segments of the keys.
        causal: queries and keys are the same sequence, of which a position sees nothing behind itself.
        packed: rows may hold several segments; else one of number 1, from their first place on, and padding.
    """

    query: Int[Array, "B T"]
    key: Int[Array, "B S"]
    causal: bool = flax.struct.field(pytree_node=False, default=False)
    packed: bool = flax.struct.field(pytree_node=False, default=True)

    def dense(self) -> Bool[Array, "B 1 T S"]:
        """The mask of booleans."""
        return self.rows(self.query, 0)

    def rows(self, query: Int[Array, "B t"], first: int | Int[Array, ""]) -> Bool[Array, "B 1 t S"]:
        """Its rows of some queries side by side, of which the first stands at this place."""
        mask = segment_mask(query, self.key)
        if self.causal:
            place = first + jnp.arange(query.shape[1])
            mask &= (place[:, None] >= jnp.arange(self.key.shape[1])[None])[None, None]
        return mask

    def sees(self) -> Bool[Array, "B T"]:
        """The queries that may attend to anything."""
        if self.causal:  # at least to themselves
            return self.query > 0
        return segment_mask(self.query, self.key).any((1, 3))
