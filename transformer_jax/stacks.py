"""The two stacks of layers (Figure 1): the encoder and the decoder."""

from dataclasses import replace
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer_jax import masks
from transformer_jax.attention import (
    Cache,
    KeyValue,
    LayerCache,
    Places,
    RelativePositions,
    relative_bias,
    rotation_of,
)
from transformer_jax.config import ModelConfig
from transformer_jax.layers import DecoderAttention, DecoderLayer, EncoderLayer
from transformer_jax.masks import SegmentMask
from transformer_jax.normalisation import layer_norm
from transformer_jax.sizes import Size

Remat: TypeAlias = Literal["none", "full", "products"]  # what a layer computes again in the backward pass

# Up to so many layers the scan is unrolled: 7% faster steps; beyond, compiling would take too long. With `remat` it
# stays a loop: unrolled, XLA on a CPU computes at once what could be computed again later, and no memory is saved.
FULLY_UNROLLED = 8


def _stack(
    layer: type[nn.Module],
    config: ModelConfig,
    depth: int,
    arguments: int,
    unroll: int | None,
    remat: Remat,
    initialising: bool,
) -> nn.Module:
    """`depth` layers run one after the other, their parameters stacked on a leading axis "layers".

    A layer is called with x and so many `arguments`, of which the last three are two flags and its places.
    """
    if remat != "none":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == "products" else None
        layer = nn.remat(layer, policy=policy, static_argnums=(arguments - 1, arguments))  # counted from self
    own = 0 if config.positions == "relative" else nn.broadcast
    scanned = nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(*(nn.broadcast,) * (arguments - 1), own),
        length=depth,
        check_constancy_invariants=initialising,  # traces all layers twice; bits of fresh parameters depend on it
        unroll=unroll or (depth if depth <= FULLY_UNROLLED and remat == "none" else 1),
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scanned(config)


class Encoder(nn.Module):
    """N encoder layers (3.1); pre-norm adds a last normalisation. `unroll` and `remat` change no numbers."""

    config: ModelConfig
    unroll: int | None = None
    remat: Remat = "none"

    def setup(self) -> None:
        """One stack of layers."""
        how = self.unroll, self.remat, self.is_initializing()
        self.layers = _stack(EncoderLayer, self.config, self.config.encoder_layers, 4, *how)
        if self.config.positions == "relative":
            self.relative = RelativePositions(self.config, self.config.encoder_layers)
        if self.config.norm == "pre":
            self.norm = layer_norm(self.config)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        mask: Bool[Array, "#B 1 #S S"] | SegmentMask | None = None,
        positions: Int[Array, "#B S"] | None = None,
        *,
        deterministic: bool = True,
        return_attention: bool = False,
    ) -> tuple[Float[Array, "B S D"], Float[Array, "L B H S S"] | None]:
        """Embedded tokens to the memory, and attention weights where they are wanted; positions count from 0."""
        relative = self.relative() if self.config.positions == "relative" else None
        places = Places(relative, rotation_of(self.config, positions, x.shape[1]))
        x, weights = self.layers(x, mask, deterministic, return_attention, places)
        return (self.norm(x) if self.config.norm == "pre" else x), weights


class Decoder(nn.Module):
    """N decoder layers (3.1); pre-norm adds a last normalisation. `unroll` and `remat` change no numbers.

    Called, it runs the stacked layers over whole sequences. `step` and `start_cache` run them one by one beside a cache
    and take the parameters of `decoding_parameters`.
    """

    config: ModelConfig
    unroll: int | None = None
    remat: Remat = "none"

    def setup(self) -> None:
        """The layers as one stack, "layers", and one by one, "layer_0" and on: a call uses one of the two."""
        how = self.unroll, self.remat, self.is_initializing()
        self.layers = _stack(DecoderLayer, self.config, self.config.decoder_layers, 6, *how)
        self.layer = [DecoderLayer(self.config) for _ in range(self.config.decoder_layers)]
        if self.config.positions == "relative":
            self.relative = RelativePositions(self.config, self.config.decoder_layers)
        if self.config.norm == "pre":
            self.norm = layer_norm(self.config)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"] | None = None,
        self_mask: Bool[Array, "#B 1 T T"] | SegmentMask | None = None,
        cross_mask: Bool[Array, "#B 1 #T S"] | SegmentMask | None = None,
        positions: Int[Array, "#B T"] | None = None,
        *,
        deterministic: bool = True,
        return_attention: bool = False,
    ) -> tuple[Float[Array, "B T D"], DecoderAttention | None]:
        """Embedded tokens and the memory to features, and attention weights where they are wanted."""
        relative = self.relative() if self.config.positions == "relative" else None
        places = Places(relative, rotation_of(self.config, positions, x.shape[1]))
        x, weights = self.layers(x, memory, self_mask, cross_mask, deterministic, return_attention, places)
        return (self.norm(x) if self.config.norm == "pre" else x), weights

    def step(
        self, x: Float[Array, "R T D"], positions: Int[Array, "R T"], cache: Cache, return_attention: bool = False
    ) -> tuple[Float[Array, "R T D"], Cache, DecoderAttention | None]:
        """The next T positions of every row of the cache, which is returned with them written behind."""
        cache, mask = cache.own(), masks.cache_mask(positions, cache.capacity)
        rotation = rotation_of(self.config, positions, x.shape[1])
        layers, weights = [], []
        for layer, layer_cache, bias in zip(self.layer, cache.layers, self._biases(positions, cache), strict=True):
            x, written, layer_weights = layer.step(
                x, layer_cache, cache.lengths, cache.holders, mask, cache.memory_mask, return_attention, bias, rotation
            )
            layers.append(written)
            weights.append(layer_weights)
        cache = replace(cache, layers=tuple(layers), lengths=cache.lengths + positions.shape[1])
        attention = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights) if return_attention else None
        return (self.norm(x) if self.config.norm == "pre" else x), cache, attention

    def _biases(self, positions: Int[Array, "R T"], cache: Cache) -> list[Float[Array, "R H T C"] | None]:
        """The relative biases of every layer on what the cache holds."""
        if self.config.positions != "relative":
            return [None] * len(self.layer)
        keys, furthest = jnp.arange(cache.capacity), self.config.relative_distance
        return [relative_bias(table, positions, keys, furthest, both_ways=False) for table in self.relative()]

    def start_cache(
        self,
        memory: Float[Array, "B S D"] | None,
        memory_mask: Bool[Array, "B 1 1 S"] | None,
        rows: Size,
        beams: int,
        capacity: int,
    ) -> Cache:
        """An empty cache for `rows` hypotheses of up to `capacity` tokens over B sentences.

        Raises:
            ValueError: when that is no multiple of `beams`, the rows that are exchanged among each other.
        """
        if isinstance(rows, int) and rows % beams:
            raise ValueError(f"{rows} rows cannot be exchanged among {beams} side by side")
        holders = jnp.zeros((rows // beams, beams, capacity), jnp.int32)
        shape = (rows, self.config.key_value_heads, capacity, self.config.channels)
        empty = KeyValue(*(jnp.zeros(shape, self.config.dtype) for _ in range(2)))
        # Behind a barrier, or XLA moves what it can of making them into the loop over steps, to be done at each.
        kept = [None if memory is None else jax.lax.optimization_barrier(layer.memory(memory)) for layer in self.layer]
        layers = (LayerCache(empty, own) for own in kept)
        return Cache(tuple(layers), jnp.zeros(rows, jnp.int32), holders, memory_mask)
