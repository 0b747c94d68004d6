"""Relative positions (Raffel et al., 2020): a bias on attention by the distance between query and key, in buckets."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer_jax.config import ModelConfig
from transformer_jax.sharding import parameter


class RelativePositions(nn.Module):
    """The biases of a stack of layers; one set, which all layers share, or a set a layer."""

    config: ModelConfig
    depth: int  # layers of the stack

    @nn.compact
    def __call__(self) -> Float[Array, "L buckets H"]:
        """The biases of every layer, bucket and head."""
        config = self.config
        sizes = {"buckets": config.relative_buckets, "heads": config.num_heads}
        if config.relative_per_layer:
            sizes = {"layers": self.depth, **sizes}
        table = parameter(self, "table", nn.initializers.normal(config.width**-0.5), **sizes)
        return jnp.broadcast_to(table, (self.depth, config.relative_buckets, config.num_heads))


def relative_bias(
    table: Float[Array, "buckets H"],
    queries: Int[Array, "B T"],
    keys: Int[Array, " S"],
    furthest: int,
    *,
    both_ways: bool,
) -> Float[Array, "B H T S"]:
    """What is added to the products of queries and keys, for where they stand.

    Args:
        table: the bias of every bucket and head.
        queries: places of the queries.
        keys: places of the keys.
        furthest: the distance from which on all share a bucket.
        both_ways: half of the buckets are for keys behind the query; else those count as at the query's own place.
    """
    behind = keys[None, None] - queries[..., None]  # -> [B T S]
    ways = 2 if both_ways else 1
    buckets = jnp.asarray(distance_buckets(table.shape[0] // ways, furthest))
    distance = jnp.abs(behind) if both_ways else jnp.maximum(-behind, 0)
    bucket = jnp.take(buckets, jnp.minimum(distance, furthest), axis=0)
    if both_ways:
        bucket = bucket + jnp.where(behind > 0, table.shape[0] // 2, 0)
    return jnp.moveaxis(jnp.take(table, bucket, axis=0), -1, 1)


def distance_buckets(count: int, furthest: int) -> Int[np.ndarray, " distances"]:
    """The bucket of each distance from 0 to `furthest`: one each up to half of them, then ever wider ones."""
    near = count // 2
    distances = np.arange(furthest + 1)
    # In float32, as the models that there are were trained: at the edges of buckets a rounding decides.
    share = np.log(np.maximum(distances, 1).astype(np.float32) / near) / np.float32(np.log(furthest / near))
    far = near + (share * np.float32(count - near)).astype(np.int32)
    return np.where(distances < near, distances, np.minimum(far, count - 1)).astype(np.int32)
