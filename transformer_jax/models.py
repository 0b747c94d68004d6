"""The model (Figure 1): embeddings, encoder and decoder joined by encode and decode."""

from typing import Any, TypeAlias

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer_jax.attention import Cache
from transformer_jax.config import ModelConfig
from transformer_jax.dropout import Dropout
from transformer_jax.layers import ClassHead, DecoderAttention, Embedding, OutputHead, Positions, TokenTypes
from transformer_jax.masks import SegmentMask
from transformer_jax.normalisation import layer_norm
from transformer_jax.projection import LogitSums, VocabularyProjection
from transformer_jax.sharding import parameter
from transformer_jax.sizes import Size
from transformer_jax.stacks import Decoder, Encoder, Remat

Parameters: TypeAlias = dict[str, Any]  # a plain tree; leaves under "layers" have a leading layer axis


@flax.struct.dataclass
class Attention:
    """Attention weights of every layer and head, before dropout; None for what a model lacks."""

    encoder: Float[Array, "L B H S S"] | None
    decoder: Float[Array, "L2 B H T T"]
    cross: Float[Array, "L2 B H T S"] | None


class Transformer(nn.Module):
    """The encoder-decoder Transformer; without decoder layers an encoder alone, without encoder layers a decoder.

    A decoder's input starts with `config.start`. Segments (see `Batch`) let several sentences share a row; where they
    are not given, a row is one sentence, and padding of the source is what equals `config.pad_id`. Positions count from
    0 where they are not given.
    """

    config: ModelConfig
    unroll: int | None = None  # of the scans over layers; changes speed only, no numbers
    remat: Remat = "none"  # of layers; changes memory and speed only, no numbers

    def setup(self) -> None:
        """Embeddings shared as configured, the two stacks, the output projection where it has a matrix of its own."""
        config = self.config
        self.dropout = Dropout(config.dropout)
        if config.share_embeddings in ("all", "inputs"):
            self.embedding = Embedding(config.vocab_size, config)
        else:
            self.source_embedding = Embedding(config.source_vocab_size or config.vocab_size, config)
            self.target_embedding = Embedding(config.vocab_size, config)
        if config.share_embeddings in ("inputs", "none"):
            self.output = VocabularyProjection(config.vocab_size, config.width)
        if config.output_head:
            self.output_head = OutputHead(config)
        if config.classes:
            self.class_head = ClassHead(config)
        if config.output_bias:
            self.output_bias = parameter(self, "output_bias", nn.initializers.zeros, vocab=config.vocab_size)
        if config.token_types:
            self.token_types = TokenTypes(config)
        if config.encoder_layers:
            self.source_positions = Positions(config)
            self.encoder = Encoder(config, self.unroll, self.remat)
        if config.decoder_layers:
            self.target_positions = Positions(config)
            self.decoder = Decoder(config, self.unroll, self.remat)
        if config.embedding_norm:
            self.source_norm, self.target_norm = layer_norm(config), layer_norm(config)

    def __call__(
        self,
        source: Int[Array, "B S"],
        target: Int[Array, "B T"],
        *,
        source_segments: Int[Array, "B S"] | None = None,
        target_segments: Int[Array, "B T"] | None = None,
        source_positions: Int[Array, "B S"] | None = None,
        target_positions: Int[Array, "B T"] | None = None,
        deterministic: bool = True,
        return_attention: bool = False,
    ) -> tuple[Float[Array, "B T V"], Attention | None]:
        """Logits of the token behind each target token (teacher forcing), and attention weights where wanted."""
        flags: dict[str, Any] = {"deterministic": deterministic, "return_attention": return_attention}
        segments = self.segments_of(source) if source_segments is None else source_segments
        memory, encoder_weights = self.encode(source, segments, source_positions, **flags)
        logits, weights = self.decode(
            target,
            memory,
            segments=target_segments,
            positions=target_positions,
            memory_segments=segments,
            **flags,
        )
        if weights is None:
            return logits, None
        return logits, Attention(encoder_weights, weights.self_attention, weights.cross_attention)

    def segments_of(self, tokens: Int[Array, "B S"]) -> Int[Array, "B S"]:
        """One segment a row, of all that is not padding."""
        return (tokens != self.config.pad_id).astype(jnp.int32)

    def encode(
        self,
        tokens: Int[Array, "B S"],
        segments: Int[Array, "B S"] | None = None,
        positions: Int[Array, "B S"] | None = None,
        *,
        types: Int[Array, "B S"] | None = None,
        packed: bool = True,
        deterministic: bool = True,
        return_attention: bool = False,
    ) -> tuple[Float[Array, "B S D"], Float[Array, "L B H S S"] | None]:
        """Source tokens to the memory that the decoder attends to, and attention weights where they are wanted.

        Where not `packed` (see `Batch`), faster kernels may be used, and the result is the same. Where the model tells
        kinds of tokens apart, all are of kind 0 where `types` are not given.
        """
        segments = self.segments_of(tokens) if segments is None else segments
        embedding = self.source_embedding if self.config.share_embeddings in ("target", "none") else self.embedding
        positions = jnp.arange(tokens.shape[1])[None] if positions is None else positions
        x = self.source_positions(embedding(tokens), positions, tokens.shape[1])
        if self.config.token_types:
            x = self.token_types(x, jnp.zeros((1, 1), jnp.int32) if types is None else types)
        if self.config.embedding_norm:
            x = self.source_norm(x)
        x = self.dropout(x, deterministic=deterministic)
        mask = SegmentMask(segments, segments, packed=packed)
        return self.encoder(x, mask, positions, deterministic=deterministic, return_attention=return_attention)

    def decode(
        self,
        tokens: Int[Array, "B T"],
        memory: Float[Array, "B S D"] | None = None,
        *,
        segments: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        memory_segments: Int[Array, "B S"] | None = None,
        deterministic: bool = True,
        return_attention: bool = False,
    ) -> tuple[Float[Array, "B T V"], DecoderAttention | None]:
        """Target tokens and the memory to logits, and attention weights where they are wanted."""
        x, weights = self.features(
            tokens,
            memory,
            segments=segments,
            positions=positions,
            memory_segments=memory_segments,
            deterministic=deterministic,
            return_attention=return_attention,
        )
        return self.logits(x), weights

    def features(
        self,
        tokens: Int[Array, "B T"],
        memory: Float[Array, "B S D"] | None = None,
        *,
        segments: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        memory_segments: Int[Array, "B S"] | None = None,
        packed: bool = True,
        deterministic: bool = True,
        return_attention: bool = False,
    ) -> tuple[Float[Array, "B T D"], DecoderAttention | None]:
        """What `decode` makes its logits of; `packed` as in `encode`."""
        segments = jnp.ones_like(tokens) if segments is None else segments
        self_mask = SegmentMask(segments, segments, causal=True, packed=packed)
        cross_mask = None if memory_segments is None else SegmentMask(segments, memory_segments, packed=packed)
        positions = jnp.arange(tokens.shape[1])[None] if positions is None else positions
        x = self.dropout(self._embed_target(tokens, positions, tokens.shape[1]), deterministic=deterministic)
        return self.decoder(
            x, memory, self_mask, cross_mask, positions, deterministic=deterministic, return_attention=return_attention
        )

    def start_cache(
        self,
        memory: Float[Array, "B S D"] | None,
        memory_segments: Int[Array, "B S"] | None,
        *,
        rows: Size,
        beams: int,
        capacity: int,
        ahead: int = 0,
    ) -> Cache:
        """An empty cache for `step`: `rows` hypotheses, side by side for each sentence, of up to `capacity` tokens.

        So many `beams`, side by side, are exchanged among each other. There is room for so many more tokens that are
        read `ahead`, and will be forgotten. Where positions are learned, those beyond the table have the last one.
        """
        if self.config.positions == "learned" and capacity > self.config.max_positions:
            raise ValueError(f"a cache of {capacity} positions, but max_positions={self.config.max_positions}")
        mask = None if memory_segments is None else (memory_segments > 0)[:, None, None]
        return self.decoder.start_cache(memory, mask, rows, beams, capacity + ahead)

    def step(
        self, tokens: Int[Array, "R T"], cache: Cache, *, return_attention: bool = False
    ) -> tuple[Float[Array, "R T V"], Cache, DecoderAttention | None]:
        """`decode` for the next T tokens of each row of a cache; parameters as `decoding_parameters` gives them."""
        positions = cache.lengths[:, None] + jnp.arange(tokens.shape[1])[None]
        rows = min(cache.capacity, self.config.max_positions) if self.config.positions == "learned" else cache.capacity
        x = self._embed_target(tokens, jnp.minimum(positions, rows - 1), rows)
        x, cache, weights = self.decoder.step(x, positions, cache, return_attention)
        return self.logits(x), cache, weights

    def classify(
        self,
        x: Float[Array, "B S D"],
        segments: Int[Array, "B S"],
        numbers: Int[Array, "B N"],
        places: Int[Array, "B N"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B N C"]:
        """The logits of the classes of texts, of what `encode` makes of them.

        Args:
            x: features of rows.
            segments: of their places.
            numbers: the segment that each text is; 0 is none.
            places: where each begins.
            deterministic: without dropout.
        """
        if self.config.pooling == "first":
            pooled = features_at(x, places)
        else:
            own = (segments[:, None] == numbers[..., None]).astype(x.dtype)  # -> [B N S]
            pooled = jnp.einsum("BNS,BSD->BND", own / jnp.maximum(own.sum(-1, keepdims=True), 1), x)
        return self.class_head(pooled, deterministic=deterministic)

    def encode_classes(self, tokens: Int[Array, "B S"]) -> Float[Array, "B 1 C"]:
        """The logits of the classes of texts, one a row."""
        segments = self.segments_of(tokens)
        first = jnp.zeros((tokens.shape[0], 1), jnp.int32)
        return self.classify(self.encode(tokens, segments)[0], segments, first + 1, first)

    def encode_logits(
        self,
        tokens: Int[Array, "B S"],
        segments: Int[Array, "B S"] | None = None,
        positions: Int[Array, "B S"] | None = None,
        **options: Any,
    ) -> Float[Array, "B S V"]:
        """The logits of every source place, as a model of masked tokens gives them; arguments as of `encode`."""
        return self.logits(self.encode(tokens, segments, positions, **options)[0])

    def _embed_target(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"], length: int
    ) -> Float[Array, "B T D"]:
        embedding = self.target_embedding if self.config.share_embeddings in ("target", "none") else self.embedding
        x = self.target_positions(embedding(tokens), positions, length)
        return self.target_norm(x) if self.config.embedding_norm else x

    def logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The logits of features."""
        logits = self._output().logits(self._before_output(x))
        return logits + self.output_bias[None, None] if self.config.output_bias else logits

    def logit_sums(self, x: Float[Array, "*places D"], targets: Int[Array, "*places"]) -> LogitSums:
        """What a loss needs of the logits of features, which need not all exist for it."""
        bias = self.output_bias if self.config.output_bias else None
        return self._output().logit_sums(self._before_output(x), targets, bias)

    def _before_output(self, x: Float[Array, "*places D"]) -> Float[Array, "*places D"]:
        if self.config.output_head:
            x = self.output_head(x)
        return x * self.config.width**-0.5 if self.config.scale_outputs else x

    def _output(self) -> Embedding | VocabularyProjection:
        if self.config.share_embeddings in ("inputs", "none"):
            return self.output
        return self.embedding if self.config.share_embeddings == "all" else self.target_embedding


def features_at(x: Float[Array, "B S D"], places: Int[Array, "B N"]) -> Float[Array, "B N D"]:
    """The features of some places of each row."""
    return jnp.take_along_axis(x, places[..., None], axis=1)
