"""How self-attention tells places apart, where nothing of them is added to the tokens' vectors."""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer_jax.attention.relative import relative_bias
from transformer_jax.attention.rotary import Rotation, rotation
from transformer_jax.config import ModelConfig


@flax.struct.dataclass
class Places:
    """What a stack gives its layers, made once for all of them; a layer gets a table of its own.

    Attributes:
        relative: the biases of buckets of distances.
        rotation: by how much queries and keys are turned.
    """

    relative: Float[Array, "*L buckets H"] | None = None
    rotation: Rotation | None = None

    def bias(
        self, config: ModelConfig, length: int, *, both_ways: bool
    ) -> Float[Array, "1 H {length} {length}"] | None:
        """The relative bias of a row on itself, by places: the sentences in it lie each in one piece."""
        if self.relative is None:
            return None
        places = jnp.arange(length)
        return relative_bias(self.relative, places[None], places, config.relative_distance, both_ways=both_ways)


def rotation_of(config: ModelConfig, positions: Int[Array, "#B T"] | None, length: int) -> Rotation | None:
    """The rotation at some positions, from 0 on where None; None of a model that rotates nothing."""
    if config.positions != "rotary":
        return None
    positions = jnp.arange(length)[None] if positions is None else positions
    return rotation(positions, config.channels, config.rotary_base)
