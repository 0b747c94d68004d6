"""Dropout (5.4): one function draws every mask, so that its generator can be changed in one place."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

from transformer_jax.hashing import scramble


@dataclasses.dataclass(frozen=True)
class Within:
    """Where the part of a larger array stands that is drawn for, so that its bits are those of the whole.

    Attributes:
        axis: the only one along which it is a part.
        size: of the whole along it.
        first: the place of the part's first element.
    """

    axis: int
    size: int
    first: int | Int[Array, ""]


def dropout(
    x: Float[Array, "*shape"], rate: float, key: Key[Array, ""], within: Within | None = None
) -> Float[Array, "*shape"]:
    """Zeroes each element with probability `rate` and scales the others by 1 / (1 - rate)."""
    threshold = jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    keep = random_bits(key, x.shape, within) >= threshold
    return jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype))


def random_bits(key: Key[Array, ""], shape: tuple[int, ...], within: Within | None = None) -> UInt32[Array, "..."]:
    """32 bits for each place, a hash of two words of the key and of the place alone: the same on any mesh.

    Threefry for every element took 3% of a step on a CPU and a quarter of its compilation; this fuses into the
    product with x, at no cost that could be measured. It is for masks, not for secrets; what it is trusted for stands
    in its tests.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    place = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        if within is not None and axis == within.axis:
            size, along = within.size, along + jnp.asarray(within.first, jnp.uint32)
        place = place * jnp.uint32(size) + along
    return scramble(scramble(place + first) ^ second)


class Dropout(nn.Module):
    """`dropout` with a key from the "dropout" generator; the identity where deterministic or where the rate is 0."""

    rate: float

    def __call__(self, x: Float[Array, "*shape"], *, deterministic: bool) -> Float[Array, "*shape"]:
        """A new mask at each call."""
        key = self.key(deterministic=deterministic)
        return x if key is None else dropout(x, self.rate, key)

    def key(self, *, deterministic: bool) -> Key[Array, ""] | None:
        """What the next mask is drawn with, by whoever draws it in parts; None where nothing is dropped."""
        return None if deterministic or self.rate == 0 else self.make_rng("dropout")
