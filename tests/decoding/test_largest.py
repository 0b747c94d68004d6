"""The largest of many numbers are those that one round finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.decoding.largest import BLOCK, largest


@pytest.mark.parametrize("width", [2, 7 * BLOCK, 7 * BLOCK + 1, 31 * BLOCK, 41 * BLOCK - 5])
@pytest.mark.parametrize("values", [3, 1000])  # many equals, and few
def test_two_rounds_find_what_one_finds_the_first_of_equals_first(width, values):
    x = jax.random.randint(jax.random.key(0), (3, 5, width), 0, values).astype(jnp.float32)
    x = jnp.where(x == 0, -jnp.inf, x)
    for count in (1, 2, 5) if width > 2 else (1, 2):
        found, expected = largest(x, count), jax.lax.top_k(x, count)
        jax.tree.map(np.testing.assert_array_equal, list(found), list(expected))


def test_where_nothing_is_possible_the_first_places_are_named():
    found, places = largest(jnp.full((2, 9 * BLOCK), -jnp.inf), 3)
    np.testing.assert_array_equal(found, -jnp.inf)
    np.testing.assert_array_equal(places, [[0, 1, 2]] * 2)
