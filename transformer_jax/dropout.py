"""Dropout (5.4): one function draws every mask, so that its generator can be changed in one place."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def dropout(x: Float[Array, "*shape"], rate: float, key: Key[Array, ""]) -> Float[Array, "*shape"]:
    """Zeroes each element with probability `rate` and scales the others by 1 / (1 - rate).

    The mask is the same on any mesh: threefry bits depend on the key and on an element's place alone.
    """
    threshold = jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    keep = jax.random.bits(key, x.shape, jnp.uint32) >= threshold
    return jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype))


class Dropout(nn.Module):
    """`dropout` with a key from the "dropout" generator; the identity where deterministic or where the rate is 0."""

    rate: float

    def __call__(self, x: Float[Array, "*shape"], *, deterministic: bool) -> Float[Array, "*shape"]:
        """A new mask at each call."""
        if deterministic or self.rate == 0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))
