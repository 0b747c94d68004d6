"""The largest of many numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BLOCK = 32  # numbers that are compared by their largest first


def largest(values: Float[Array, "*rows V"], count: int) -> tuple[Float[Array, "*rows K"], Int[Array, "*rows K"]]:
    """The largest of each row, in order, and where they are; of equals the first; of numbers that are no NaN.

    Like `jax.lax.top_k`, in two rounds, the first of which finds the blocks with the largest numbers: on a CPU the best
    8 of 8,000 words take a third of the time. No more blocks than numbers are wanted can have one of them, and the
    first blocks of equals have the first. Where these blocks would be half of all, one round is left.
    """
    blocks = -(-values.shape[-1] // BLOCK)
    if blocks <= 2 * count:
        found, places = jax.lax.top_k(values, count)
        return found, places
    rest = blocks * BLOCK - values.shape[-1]
    filled = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, rest)], constant_values=-jnp.inf)
    divided = filled.reshape(*values.shape[:-1], blocks, BLOCK)
    _, chosen = jax.lax.top_k(divided.max(axis=-1), count)
    chosen = jnp.sort(chosen, axis=-1)  # -> [*rows K]
    within = jnp.take_along_axis(divided, chosen[..., None], axis=-2, mode="promise_in_bounds")  # -> [*rows K BLOCK]
    found, places = jax.lax.top_k(within.reshape(*values.shape[:-1], -1), count)
    block = jnp.take_along_axis(chosen, places // BLOCK, axis=-1, mode="promise_in_bounds")
    return found, block * BLOCK + places % BLOCK
