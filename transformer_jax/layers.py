"""The parts of Figure 1: embeddings, positions, feed-forward network, the sublayer, and the two layers made of them."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer_jax.attention import Held, KeyValue, LayerCache, Memory, MultiHeadAttention, Places, Rotation
from transformer_jax.config import ModelConfig
from transformer_jax.depth import residual_weight
from transformer_jax.dropout import Dropout
from transformer_jax.masks import SegmentMask
from transformer_jax.normalisation import layer_norm
from transformer_jax.projection import LogitSums, Projection, vocabulary_products, vocabulary_sums
from transformer_jax.sharding import constrain, parameter


class Embedding(nn.Module):
    """Token vectors times sqrt(d_model) (3.4), of padding a constant zero. `logits` uses the same matrix."""

    vocab_size: int
    config: ModelConfig

    def setup(self) -> None:
        """One matrix [V, D]; a deviation of D^-0.5 makes both the scaled vectors and the logits of unit size."""
        initialiser = nn.initializers.normal(self.config.width**-0.5)
        self.table = parameter(self, "table", initialiser, vocab=self.vocab_size, width=self.config.width)

    def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """The vectors of the tokens."""
        tokens = constrain(tokens, "replica", None)
        config = self.config
        vectors = jnp.take(self.table, tokens, axis=0)
        if config.scale_embeddings:
            vectors = vectors * math.sqrt(config.width)
        if not config.embed_padding:
            vectors = jnp.where((tokens == config.pad_id)[..., None], 0.0, vectors)
        return constrain(constrain(vectors.astype(config.dtype), "replica", None, "width"), "batch", None, None)

    def logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The products with every token's vector, in float32 at least."""
        return vocabulary_products(x, self.table)

    def logit_sums(
        self, x: Float[Array, "*places D"], targets: Int[Array, "*places"], bias: Float[Array, " V"] | None
    ) -> LogitSums:
        """What a loss needs of the logits."""
        return vocabulary_sums(x, self.table, targets, bias)


def sinusoids(
    length: int, width: int, layout: Literal["interleaved", "halves", "authors"] = "interleaved"
) -> Float[np.ndarray, "{length} {width}"]:
    """Sines and cosines of each position, at wavelengths from 2 pi to 10000 * 2 pi (3.5).

    Args:
        length: positions 0 to length - 1.
        width: channels; even.
        layout: interleaved is the formula as printed, PE(pos, 2i) = sin(pos / 10000^(2i / width)), PE(pos, 2i + 1) the
            cosine; halves holds the same values, all sines before all cosines; authors is the code the authors
            published: halves, at frequencies 10000^(-i / (width / 2 - 1)).
    """
    half = width // 2
    steps = max(half - 1, 1) if layout == "authors" else half
    angles = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(half) / steps)[None]
    sines_cosines = (np.sin(angles), np.cos(angles))
    join = np.stack(sines_cosines, axis=-1) if layout == "interleaved" else np.concatenate(sines_cosines, axis=-1)
    return join.reshape(length, width).astype(np.float32)


class Positions(nn.Module):
    """Adds a vector for each position: sinusoids, or learned ones (3.5); none where attention tells them apart."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], positions: Int[Array, "#B T"], length: int) -> Float[Array, "B T D"]:
        """`length` bounds the positions from above."""
        config = self.config
        if config.positions == "relative" or config.positions == "rotary":
            return x
        if config.positions == "learned":
            if length > config.max_positions:
                raise ValueError(f"{length} positions, but max_positions={config.max_positions}")
            sizes = {"positions": config.position_offset + config.max_positions, "width": config.width}
            table = parameter(self, "table", nn.initializers.normal(1.0), **sizes)
        else:
            table = jnp.asarray(sinusoids(config.position_offset + length, config.width, config.positions))
        return x + jnp.take(table, config.position_offset + positions, axis=0).astype(x.dtype)


class TokenTypes(nn.Module):
    """Adds a vector for the kind of each token, as BERT tells the sentences of a pair apart."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], types: Int[Array, "#B #T"]) -> Float[Array, "B T D"]:
        """Kinds count from 0."""
        sizes = {"types": self.config.token_types, "width": self.config.width}
        table = parameter(self, "table", nn.initializers.normal(self.config.width**-0.5), **sizes)
        return x + jnp.take(table, types, axis=0).astype(x.dtype)


def activation(config: ModelConfig) -> Callable[[Array], Array]:
    """The activation function of the feed-forward network."""
    functions: dict[str, Callable[[Array], Array]] = {
        "relu": jax.nn.relu,
        "gelu": functools.partial(jax.nn.gelu, approximate=True),
        "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
        "silu": jax.nn.silu,
    }
    return functions[config.activation]


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 at each position (3.3), with other activations and a gate by choice."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], *, deterministic: bool = True) -> Float[Array, "B T D"]:
        """Width d_model to d_ff and back."""
        config = self.config
        activate = activation(config)

        def project(name: str, features: int, into: str, out: str) -> Projection:
            rank, bias = config.rank_of(name), config.ffn_bias
            return Projection(features, (into, out), bias, config.dtype, rank, config.lora_scale, name=name)

        def widen(name: str) -> Float[Array, "B T F"]:
            return project(name, config.ffn_width, "width", "ffn")(x)

        hidden = activate(widen("gate")) * widen("inner") if config.gated else activate(widen("inner"))
        hidden = Dropout(config.activation_dropout)(hidden, deterministic=deterministic)
        return project("outer", config.width, "ffn", "width")(hidden)


class OutputHead(nn.Module):
    """A projection, the activation and a normalisation between the features and the logits, as BERT has them."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*places D"]) -> Float[Array, "*places D"]:
        """Features to those that the logits are made of."""
        width, config = self.config.width, self.config
        x = Projection(width, ("width", "heads"), use_bias=True, dtype=config.dtype, name="projection")(x)
        return layer_norm(config, "norm")(activation(config)(x))


class ClassHead(nn.Module):
    """Features of a text to the logits of its classes: a projection, tanh, another projection, as BERT has them."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], *, deterministic: bool = True) -> Float[Array, "B N C"]:
        """C classes, in float32 at least."""
        width, config = self.config.width, self.config
        x = Projection(width, ("width", "heads"), use_bias=True, dtype=config.dtype, name="projection")(x)
        x = Dropout(config.dropout)(jnp.tanh(x), deterministic=deterministic)
        exact = str(jnp.promote_types(config.dtype, jnp.float32))
        return Projection(config.classes, ("width", "classes"), use_bias=True, dtype=exact, name="classes")(x)


class Sublayer(nn.Module):
    """The frame around every sublayer (3.1, 5.4): LayerNorm(x + Dropout(f(x))), or x + Dropout(f(LayerNorm(x))).

    DeepNorm (Wang et al., 2022) is the first of the two with a weight on x.
    """

    config: ModelConfig
    residual: float = 1.0  # how many times x counts in a sum that is normalised

    def setup(self) -> None:
        """One normalisation, one dropout."""
        self.norm = layer_norm(self.config)
        self.dropout = Dropout(self.config.dropout)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        function: Callable[[Array], tuple[Array, Any]],
        *,
        deterministic: bool,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Runs `function` within the frame; what it returns beside its output is passed on."""
        if self.config.norm == "pre":
            output, extra = function(self.norm(x))
            return x + self.dropout(output, deterministic=deterministic), extra
        output, extra = function(x)
        x = self.residual * x if self.config.norm == "deep" else x
        return self.norm(x + self.dropout(output, deterministic=deterministic)), extra


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network (3.1, Figure 1 left)."""

    config: ModelConfig

    def setup(self) -> None:
        """Two sublayers, each in its frame."""
        frame = functools.partial(Sublayer, self.config, residual_weight(self.config, "encoder"))
        self.self_attention = MultiHeadAttention(self.config)
        self.feed_forward = FeedForward(self.config)
        self.self_attention_frame, self.feed_forward_frame = frame(), frame()

    def __call__(
        self,
        x: Float[Array, "B S D"],
        mask: Bool[Array, "#B 1 #S S"] | SegmentMask | None = None,
        deterministic: bool = True,
        return_attention: bool = False,
        places: Places | None = None,
    ) -> tuple[Float[Array, "B S D"], Float[Array, "B H S S"] | None]:
        """Returns the output, and the attention weights where they are wanted."""
        flags = {"deterministic": deterministic, "return_weights": return_attention}
        places = Places() if places is None else places
        bias = places.bias(self.config, x.shape[1], both_ways=True)
        x, weights = self.self_attention_frame(
            x, lambda y: self.self_attention(y, y, mask, bias, places.rotation, **flags), deterministic=deterministic
        )
        x, _ = self.feed_forward_frame(
            x, lambda y: (self.feed_forward(y, deterministic=deterministic), None), deterministic=deterministic
        )
        return x, weights


@flax.struct.dataclass
class DecoderAttention:
    """Attention weights of the decoder, before dropout; stacked over layers when they come from a model."""

    self_attention: Float[Array, "*L B H T S"]
    cross_attention: Float[Array, "*L B H T S2"] | None


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder's output, then the feed-forward network (3.1, Figure 1 right).

    Without an encoder, the second of the three is left out.
    """

    config: ModelConfig

    def setup(self) -> None:
        """Three sublayers, each in its frame."""
        frame = functools.partial(Sublayer, self.config, residual_weight(self.config, "decoder"))
        self.self_attention = MultiHeadAttention(self.config)
        self.feed_forward = FeedForward(self.config)
        self.self_attention_frame, self.feed_forward_frame = frame(), frame()
        if self.config.encoder_layers:
            self.cross_attention = MultiHeadAttention(self.config)
            self.cross_attention_frame = frame()

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"] | None = None,
        self_mask: Bool[Array, "#B 1 T T"] | SegmentMask | None = None,
        cross_mask: Bool[Array, "#B 1 #T S"] | SegmentMask | None = None,
        deterministic: bool = True,
        return_attention: bool = False,
        places: Places | None = None,
    ) -> tuple[Float[Array, "B T D"], DecoderAttention | None]:
        """Returns the output, and the attention weights where they are wanted."""
        flags = {"deterministic": deterministic, "return_weights": return_attention}
        places = Places() if places is None else places
        bias = places.bias(self.config, x.shape[1], both_ways=False)

        def attend_within(y: Float[Array, "B T D"]) -> tuple[Array, Array | None]:
            return self.self_attention(y, y, self_mask, bias, places.rotation, **flags)

        def attend_to_memory(y: Float[Array, "B T D"]) -> tuple[Array, Array | None]:
            if memory is None:
                raise ValueError("memory is None: this decoder attends to the output of an encoder")
            return self.cross_attention(y, memory, cross_mask, None, None, **flags)

        x, own, cross = self._sublayers(x, attend_within, attend_to_memory, deterministic)
        return x, DecoderAttention(own, cross) if return_attention else None

    def step(
        self,
        x: Float[Array, "R T D"],
        cache: LayerCache,
        lengths: Int[Array, " R"],
        holders: Int[Array, "N W C"],
        self_mask: Bool[Array, "R 1 T C"],
        memory_mask: Bool[Array, "B 1 1 S"] | None,
        return_attention: bool = False,
        self_bias: Float[Array, "R H T C"] | None = None,
        rotation: Rotation | None = None,
    ) -> tuple[Float[Array, "R T D"], LayerCache, DecoderAttention | None]:
        """The next T positions of R rows whose past lies in the cache; returns the cache with them written behind."""
        longest = jnp.max(lengths) + x.shape[1]

        def attend_to_past(y: Float[Array, "R T D"]) -> tuple[Array, tuple[Array | None, KeyValue]]:
            past = cache.past.write(KeyValue.of(*self.self_attention.keys_values(y, rotation)), lengths)
            held = Held(past, holders, longest)
            output, weights = self.self_attention(
                y, held, self_mask, self_bias, rotation, return_weights=return_attention
            )
            return output, (weights, past)

        def attend_to_memory(y: Float[Array, "R T D"]) -> tuple[Array, Array | None]:
            if cache.memory is None:
                raise ValueError("the cache was started without a memory: this decoder attends to that of an encoder")
            beams = y.reshape(cache.memory.key.shape[0], -1, y.shape[-1])  # -> [B W*T D], queries of one product
            output, weights = self.cross_attention(beams, cache.memory, memory_mask, return_weights=return_attention)
            if weights is not None:  # [B H W*T S] -> [R H T S]
                split = weights.reshape(*weights.shape[:2], -1, y.shape[1], weights.shape[-1])
                weights = split.swapaxes(1, 2).reshape(y.shape[0], -1, *split.shape[3:])
            return output.reshape(y.shape), weights

        x, (own, past), cross = self._sublayers(x, attend_to_past, attend_to_memory, deterministic=True)
        attention = DecoderAttention(own, cross) if return_attention else None
        return x, replace(cache, past=past), attention

    def memory(self, encoded: Float[Array, "B S D"]) -> Memory:
        """What cross-attention needs of the encoder's output, computed once for a sentence."""
        return Memory.of(*self.cross_attention.keys_values(encoded))

    def _sublayers(
        self,
        x: Float[Array, "B T D"],
        self_attention: Callable[[Array], tuple[Array, Any]],
        cross_attention: Callable[[Array], tuple[Array, Any]],
        deterministic: bool,
    ) -> tuple[Float[Array, "B T D"], Any, Any]:
        x, own = self.self_attention_frame(x, self_attention, deterministic=deterministic)
        cross = None
        if self.config.encoder_layers:
            x, cross = self.cross_attention_frame(x, cross_attention, deterministic=deterministic)
        x, _ = self.feed_forward_frame(
            x, lambda y: (self.feed_forward(y, deterministic=deterministic), None), deterministic=deterministic
        )
        return x, own, cross
