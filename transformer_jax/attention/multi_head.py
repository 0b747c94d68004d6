"""Multi-head attention (3.2.2)."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from transformer_jax.attention.cache import KeyValue
from transformer_jax.attention.dot_product import attention_weights, mix_values, shield
from transformer_jax.attention.paths import segment_attention
from transformer_jax.config import ModelConfig
from transformer_jax.dropout import Dropout
from transformer_jax.masks import SegmentMask
from transformer_jax.projection import Projection


class MultiHeadAttention(nn.Module):
    """Concat(head_1 .. head_h) W^O, each head attending over its own projections (3.2.2)."""

    config: ModelConfig

    def setup(self) -> None:
        """W^Q, W^K, W^V of all heads side by side, [D, H*K], and W^O, [H*K, D]."""
        config = self.config
        heads = config.num_heads * config.channels

        def project(name: str, features: int, into: str, out: str) -> Projection:
            rank, bias = config.rank_of(name), config.attention_bias
            return Projection(features, (into, out), bias, config.dtype, rank, config.lora_scale)

        self.query, self.key, self.value = (
            project(name, heads, "width", "heads") for name in ("query", "key", "value")
        )
        self.out = project("out", config.width, "heads", "width")
        self.dropout = Dropout(self.config.attention_dropout)

    def __call__(
        self,
        queries: Float[Array, "B T D"],
        memory: Float[Array, "B S D"] | KeyValue,
        mask: Bool[Array, "#B #H #T S"] | SegmentMask | None = None,
        bias: Float[Array, "#B #H #T S"] | None = None,
        *,
        deterministic: bool = True,
        return_weights: bool = False,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T S"] | None]:
        """Attends from `queries` to `memory`, or to keys and values made of it before; `bias` is added to the products.

        Returns:
            The output, and the attention weights before dropout where `return_weights`, else None.
        """
        query = self._split(self.query(queries))  # -> [B T H K]
        scale = None if self.config.scale_attention else 1.0
        dense = mask.dense() if isinstance(mask, SegmentMask) else mask
        if isinstance(memory, KeyValue):  # what the model made itself: to shield all of it at each step would be waste
            key, value = memory.key.swapaxes(1, 2), memory.value.swapaxes(1, 2)
        else:
            key, value = self._split(self.key(memory)), self._split(self.value(memory))
            if isinstance(mask, SegmentMask) and bias is None and scale is None and not return_weights:
                dropout_key = self.dropout.key(deterministic=deterministic)
                return self._join(segment_attention(query, key, value, mask, self.dropout.rate, dropout_key)), None
            query, key, value, bias = shield(query, key, value, dense, bias)
        weights = attention_weights(query, key, dense, bias, scale)  # -> [B H T S]
        mixed = mix_values(self.dropout(weights, deterministic=deterministic), value)
        return self._join(mixed), weights if return_weights else None

    def keys_values(self, memory: Float[Array, "B S D"]) -> KeyValue:
        """Keys and values of the memory, [B H S K], to attend to more than once."""
        key, value = (self._split(project(memory)).swapaxes(1, 2) for project in (self.key, self.value))
        return KeyValue(key, value)

    def _join(self, mixed: Float[Array, "B T H K"]) -> Float[Array, "B T D"]:
        return self.out(mixed.reshape(*mixed.shape[:2], -1))

    def _split(self, x: Float[Array, "B T C"]) -> Float[Array, "B T H K"]:
        return x.reshape(*x.shape[:-1], self.config.num_heads, self.config.channels)
