"""Rotary positions (Su et al., 2021): pairs of channels of queries and keys, turned by angles that grow with the place.

The product of a query and a key then depends on how far apart they stand, and on nothing else of where they are.
"""

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class Rotation:
    """How far each pair of channels is turned at each place: the same in all heads and layers."""

    cosine: Float[Array, "#B T pairs"]
    sine: Float[Array, "#B T pairs"]


def rotation(positions: Int[Array, "#B T"], channels: int, base: float = 10_000.0) -> Rotation:
    """The angles position * base^(-2i / channels) of the pairs i of a head's channels."""
    frequencies = base ** (-np.arange(channels // 2) * 2 / channels)
    angles = positions[..., None] * jnp.asarray(frequencies, jnp.float32)[None, None]  # -> [B T pairs]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotated(x: Float[Array, "B T H K"], by: Rotation) -> Float[Array, "B T H K"]:
    """Queries or keys, turned for where they stand; channels i and i + K / 2 are a pair."""
    first, second = jnp.split(x.astype(by.cosine.dtype), 2, axis=-1)
    cosine, sine = by.cosine[:, :, None], by.sine[:, :, None]
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)
