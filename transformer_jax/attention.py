"""Attention (3.2): scaled dot products as free functions, multiple heads as a module, and keys and values kept."""

from dataclasses import replace

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer_jax.config import ModelConfig
from transformer_jax.dropout import Dropout
from transformer_jax.projection import Projection


@flax.struct.dataclass
class KeyValue:
    """Keys and values to attend to more than once; as a cache, S entries of which the first ones are written.

    Those of a head lie side by side, as products with queries read them: a step need not rearrange all it ever kept.
    """

    key: Float[Array, "B H S K"]
    value: Float[Array, "B H S K"]

    @property
    def length(self) -> int:
        """Entries that there is room for: S."""
        return self.key.shape[2]

    def write(self, new: "KeyValue", lengths: Int[Array, " B"]) -> "KeyValue":
        """Writes T new entries [B H T K] behind the `lengths` entries that each row holds."""

        def put(row: Float[Array, "H S K"], entries: Float[Array, "H T K"], start: Int[Array, ""]) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(row, entries.astype(row.dtype), start, axis=1)

        return jax.tree.map(lambda cache, entries: jax.vmap(put)(cache, entries, lengths), self, new)

    def select(self, rows: Int[Array, " R"]) -> "KeyValue":
        """The given rows, in the given order."""
        return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), self)


@flax.struct.dataclass
class LayerCache:
    """What one decoder layer keeps: of R rows its own past, of B sentences the memory, shared by their beams."""

    past: KeyValue
    memory: KeyValue | None


@flax.struct.dataclass
class Cache:
    """What the decoder keeps between steps: an entry a layer, and how many tokens each of the R rows holds.

    The rows of a sentence, one a beam, lie side by side, so R is a multiple of the number of sentences B.

    Beams are exchanged by copying their rows. A table of which row holds each entry, and a mask over all rows of a
    sentence, copies nothing but was slower on a CPU: beam 4, 16 sentences and 32 tokens 3.33 CPU s for 2.99, 4
    sentences and 128 tokens 10.1 for 8.3.
    """

    layers: tuple[LayerCache, ...]
    lengths: Int[Array, " R"]
    memory_mask: Bool[Array, "B 1 1 S"] | None

    @property
    def capacity(self) -> int:
        """Tokens that fit in a row."""
        return self.layers[0].past.length

    def reorder(self, rows: Int[Array, " R"]) -> "Cache":
        """Rows exchanged within their sentences, as beam search does: the memory stays where it is."""
        layers = tuple(replace(layer, past=layer.past.select(rows)) for layer in self.layers)
        return replace(self, layers=layers, lengths=self.lengths[rows])

    def rewind(self, lengths: Int[Array, " R"]) -> "Cache":
        """Only the first `lengths` tokens of each row; what lies behind is written over."""
        return replace(self, lengths=lengths)

    def select(self, rows: Int[Array, " R2"]) -> "Cache":
        """Any rows, all beams of a sentence together: sentences may be dropped, repeated or exchanged."""
        memory = self.layers[0].memory
        if memory is None:
            return self.reorder(rows)
        beams = self.lengths.shape[0] // memory.key.shape[0]
        sentences = rows[::beams] // beams
        layers = tuple(
            replace(layer, memory=None if layer.memory is None else layer.memory.select(sentences))
            for layer in self.layers
        )
        mask = None if self.memory_mask is None else self.memory_mask[sentences]
        return replace(self, layers=layers, memory_mask=mask).reorder(rows)


def attention_weights(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    mask: Bool[Array, "#B #H #T S"] | None = None,
    bias: Float[Array, "#B #H #T S"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B H T S"]:
    """softmax(Q K^T * scale + bias) over the keys that the mask allows (3.2.1, equation 1), in float32 at least.

    Args:
        query: one vector for each position and head.
        key: one vector for each place that may be attended to.
        mask: True = may attend. A query that may attend to nothing gets weights of zero.
        bias: added to the scaled products.
        scale: 1 / sqrt(d_k) where None.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    exact = jnp.promote_types(query.dtype, jnp.float32)
    logits = jnp.einsum("BTHK,BSHK->BHTS", query * scale, key, preferred_element_type=exact)
    if bias is not None:
        logits = logits + bias
    if mask is None:
        return jax.nn.softmax(logits)
    weights = jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(exact).min))
    return jnp.where(mask, weights, 0.0)


def mix_values(weights: Float[Array, "B H T S"], value: Float[Array, "B S H K"]) -> Float[Array, "B T H K"]:
    """The values, summed by their weights for each query and head."""
    # Straight to BTHK, einsum makes a product of value and weights, which XLA on a CPU takes up to 7 times as long for.
    return jnp.einsum("BHTS,BSHK->BHTK", weights.astype(value.dtype), value).swapaxes(1, 2)


def dot_product_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    mask: Bool[Array, "#B #H #T S"] | None = None,
    bias: Float[Array, "#B #H #T S"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B T H K"]:
    """softmax(Q K^T / sqrt(d_k)) V (3.2.1, equation 1).

    A query that may attend to nothing gets zeros. What the mask hides is as if it were not there: neither a gradient
    nor a NaN or infinity passes through it.

    Args:
        query: one vector for each position and head.
        key: one vector for each place that may be attended to.
        value: what those places give.
        mask: True = may attend.
        bias: added to the scaled products.
        scale: 1 / sqrt(d_k) where None.
    """
    query, key, value, bias = shield(query, key, value, mask, bias)
    return mix_values(attention_weights(query, key, mask, bias, scale), value)


def shield(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    mask: Bool[Array, "#B #H #T S"] | None,
    bias: Float[Array, "#B #H #T S"] | None,
) -> tuple[Array, Array, Array, Array | None]:
    """Query, key and value without what would leak through a product with zero, and the bias that makes up for it.

    A product turns 0 * NaN into NaN. So places that are not finite become zero, and a bias of NaN gives them back to
    the queries that do see them; queries that see nothing become zero.
    """
    if mask is None:
        return query, key, value, bias
    finite = jnp.isfinite(key).all(-1) & jnp.isfinite(value).all(-1)  # -> [B S H]
    key, value = (jnp.where(finite[..., None], x, 0) for x in (key, value))
    sees = jnp.swapaxes(mask.any(-1), 1, 2)[..., None]  # -> [B T H 1]
    query = jnp.where(sees, query, 0)
    poison = jnp.where(finite, 0.0, jnp.nan).swapaxes(1, 2)[:, :, None]  # -> [B H 1 S]
    return query, key, value, poison if bias is None else bias + poison


class MultiHeadAttention(nn.Module):
    """Concat(head_1 .. head_h) W^O, each head attending over its own projections (3.2.2)."""

    config: ModelConfig

    def setup(self) -> None:
        """W^Q, W^K, W^V of all heads side by side, [D, H*K], and W^O, [H*K, D]."""
        heads = self.config.num_heads * self.config.channels
        self.query, self.key, self.value = (
            Projection(heads, ("width", "heads"), dtype=self.config.dtype) for _ in range(3)
        )
        self.out = Projection(self.config.width, ("heads", "width"), dtype=self.config.dtype)
        self.dropout = Dropout(self.config.attention_dropout)

    def __call__(
        self,
        queries: Float[Array, "B T D"],
        memory: Float[Array, "B S D"] | KeyValue,
        mask: Bool[Array, "#B #H #T S"] | None = None,
        *,
        deterministic: bool = True,
        return_weights: bool = False,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T S"] | None]:
        """Attends from `queries` to `memory`, or to keys and values made of it before.

        Returns:
            The output, and the attention weights before dropout where `return_weights`, else None.
        """
        query, bias = self._split(self.query(queries)), None  # -> [B T H K]
        if isinstance(memory, KeyValue):  # what the model made itself: to shield all of it at each step would be waste
            key, value = memory.key.swapaxes(1, 2), memory.value.swapaxes(1, 2)
        else:
            key, value = self._split(self.key(memory)), self._split(self.value(memory))
            query, key, value, bias = shield(query, key, value, mask, bias)
        weights = attention_weights(query, key, mask, bias)  # -> [B H T S]
        mixed = mix_values(self.dropout(weights, deterministic=deterministic), value)
        output = self.out(mixed.reshape(*queries.shape[:-1], -1))
        return output, weights if return_weights else None

    def keys_values(self, memory: Float[Array, "B S D"]) -> KeyValue:
        """Keys and values of the memory, [B H S K], to attend to more than once."""
        key, value = (self._split(project(memory)).swapaxes(1, 2) for project in (self.key, self.value))
        return KeyValue(key, value)

    def _split(self, x: Float[Array, "B T C"]) -> Float[Array, "B T H K"]:
        return x.reshape(*x.shape[:-1], self.config.num_heads, self.config.channels)
