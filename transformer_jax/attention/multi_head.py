"""Multi-head attention (3.2.2)."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from transformer_jax.attention.cache import Held, Memory
from transformer_jax.attention.dot_product import attention_weights, mix_values, shield
from transformer_jax.attention.kept import kept_attention
from transformer_jax.attention.paths import segment_attention
from transformer_jax.attention.rotary import Rotation, rotated
from transformer_jax.config import ModelConfig
from transformer_jax.dropout import Dropout
from transformer_jax.masks import SegmentMask
from transformer_jax.normalisation import head_norm
from transformer_jax.projection import Projection


class MultiHeadAttention(nn.Module):
    """Concat(head_1 .. head_h) W^O, each head attending over its own projections (3.2.2).

    With fewer `kv_heads` several heads of queries share one of keys and values (Ainslie et al., 2023).
    """

    config: ModelConfig

    def setup(self) -> None:
        """W^Q of all heads side by side, [D, H*K], W^K and W^V, [D, G*K], and W^O, [H*K, D]."""
        config = self.config

        def project(name: str, features: int, into: str, out: str) -> Projection:
            rank, bias = config.rank_of(name), config.attention_bias
            return Projection(features, (into, out), bias, config.dtype, rank, config.lora_scale)

        self.query = project("query", config.num_heads * config.channels, "width", "heads")
        self.key, self.value = (
            project(name, config.key_value_heads * config.channels, "width", "heads") for name in ("key", "value")
        )
        self.out = project("out", config.width, "heads", "width")
        self.query_norm, self.key_norm = (head_norm(config) if config.query_key_norm else None for _ in range(2))
        self.dropout = Dropout(config.attention_dropout)

    def __call__(
        self,
        queries: Float[Array, "B T D"],
        memory: Float[Array, "B S D"] | Held | Memory,
        mask: Bool[Array, "#B #H #T S"] | SegmentMask | None = None,
        bias: Float[Array, "#B #H #T S"] | None = None,
        rotation: Rotation | None = None,
        *,
        deterministic: bool = True,
        return_weights: bool = False,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T S"] | None]:
        """Attends from `queries` to `memory`, or to keys and values made of it before.

        Args:
            queries: what attends.
            memory: what is attended to, or keys and values made of it before, of which no weight is ever dropped.
            mask: who may attend to whom.
            bias: added to the products of queries and keys.
            rotation: what turns queries and keys, which then stand at the same places.
            deterministic: no dropout.
            return_weights: whether the attention weights are wanted.

        Returns:
            The output, and the attention weights before dropout where `return_weights`, else None.
        """
        query = self._prepared(self.query(queries), self.query_norm, rotation)  # -> [B T H K]
        scale = None if self.config.scale_attention else 1.0
        dense = mask.dense() if isinstance(mask, SegmentMask) else mask
        if isinstance(memory, Held | Memory):  # of the model's own: to shield it at each step would be waste
            mixed, weights = kept_attention(query, memory, dense, bias, scale)
            return self._join(mixed), weights if return_weights else None
        key, value = self.keys_values(memory, rotation)
        if isinstance(mask, SegmentMask) and bias is None and scale is None and not return_weights:
            dropout_key = self.dropout.key(deterministic=deterministic)
            return self._join(segment_attention(query, key, value, mask, self.dropout.rate, dropout_key)), None
        query, key, value, bias = shield(query, key, value, dense, bias)
        weights = attention_weights(query, key, dense, bias, scale)  # -> [B H T S]
        mixed = mix_values(self.dropout(weights, deterministic=deterministic), value)
        return self._join(mixed), weights if return_weights else None

    def keys_values(
        self, memory: Float[Array, "B S D"], rotation: Rotation | None = None
    ) -> tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]]:
        """Keys and values of the memory, keys turned already."""
        key = self._prepared(self.key(memory), self.key_norm, rotation)
        return key, self._split(self.value(memory))  # -> [B S G K]

    def _prepared(
        self, x: Float[Array, "B T C"], norm: Callable[[Array], Array] | None, rotation: Rotation | None
    ) -> Float[Array, "B T H K"]:
        x = self._split(x)
        x = x if norm is None else norm(x)
        return x if rotation is None else rotated(x, rotation)

    def _join(self, mixed: Float[Array, "B T H K"]) -> Float[Array, "B T D"]:
        return self.out(mixed.reshape(*mixed.shape[:2], -1))

    def _split(self, x: Float[Array, "B T C"]) -> Float[Array, "B T H K"]:
        return x.reshape(*x.shape[:-1], x.shape[-1] // self.config.channels, self.config.channels)
