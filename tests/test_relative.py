"""Relative positions, against values that can be worked out by hand."""

import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.relative import distance_buckets, relative_bias


def test_buckets_grow_with_the_distance():
    """Of 16: one each below 8, then two for every doubling, so edges at 8 * 2^(n / 2): 11.3, 16, 22.6, 32 and on."""
    buckets = distance_buckets(16, 128).tolist()
    assert buckets[:8] == [*range(8)]
    edges = [first for first in range(1, 129) if buckets[first] != buckets[first - 1]]
    assert edges[7:] == [8, 12, 16, 23, 32, 46, 64, 91]
    assert buckets[-1] == 15


def test_a_bias_for_each_distance():
    table = jnp.arange(8.0)[:, None]  # of 8 buckets and one head: the bias is the bucket
    places = jnp.arange(7)
    # One way: distances 0 to 3, then 4 to 5.65, 5.65 to 8, and on; what stands behind the query counts as 0.
    bias = relative_bias(table, jnp.array([[0, 6]]), places, 16, both_ways=False)[0, 0]
    np.testing.assert_array_equal(bias, [[0, 0, 0, 0, 0, 0, 0], [5, 4, 4, 3, 2, 1, 0]])
    # Both ways: 4 buckets each, for distances 0, 1, 2 to 5.65 (2 * 8^(1/2)) and on; behind the query from bucket 4 on.
    bias = relative_bias(table, jnp.array([[0, 6]]), places, 16, both_ways=True)[0, 0]
    np.testing.assert_array_equal(bias, [[0, 5, 6, 6, 6, 6, 7], [3, 2, 2, 2, 2, 1, 0]])
