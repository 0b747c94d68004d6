"""A hash of 32 bits that runs on any device, fused into what uses it."""

import jax.numpy as jnp
from jaxtyping import Array, UInt32


def scramble(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """A bijection of 32 bits that flips about half of them for any change (xorshift and multiply, twice)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)
