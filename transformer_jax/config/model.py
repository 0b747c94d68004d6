"""The sizes and parts of the model."""

from typing import Literal, TypeAlias

from transformer_jax.checked import config, require, require_positive, require_share

Projected: TypeAlias = Literal["query", "key", "value", "out", "gate", "inner", "outer"]


@config
class ModelConfig:
    """The sizes and parts of the Transformer; the defaults are the paper's base model."""

    encoder_layers: int = 6  # N of the encoder; 0 makes a decoder-only model
    decoder_layers: int = 6  # N of the decoder; 0 makes an encoder-only model
    width: int = 512  # d_model
    num_heads: int = 8  # h
    kv_heads: int | None = None  # heads of keys and values, each for a group of heads; None is num_heads
    head_width: int | None = None  # d_k = d_v; None is width // num_heads
    ffn_width: int = 2048  # d_ff
    vocab_size: int = 37_000  # of the target, and of the source where the two are one
    source_vocab_size: int | None = None  # None is vocab_size
    activation: Literal["relu", "gelu", "gelu_exact", "silu"] = (
        "relu"  # of the feed-forward network; gelu by its approximation, gelu_exact by the error function
    )
    gated: bool = False  # feed-forward with a gate: activation(x W_g) * (x W_1)
    ffn_bias: bool = True  # biases in the feed-forward network
    attention_bias: bool = False  # biases on the four projections of attention
    scale_attention: bool = True  # products of queries and keys by 1 / sqrt(d_k)
    query_key_norm: bool = False  # normalisation of the queries and keys of each head
    norm: Literal["post", "pre", "deep"] = "post"  # post as published; pre for easy training; deep: post for depth
    norm_type: Literal["layer", "rms"] = "layer"  # rms: divided by the root of the mean square, no mean, no bias
    norm_epsilon: float = 1e-6  # added to the variance
    positions: Literal["interleaved", "halves", "authors", "learned", "relative", "rotary"] = (
        "interleaved"  # halves: sines, then cosines; authors: halves by their code; relative: biases; rotary: angles
    )
    position_offset: int = 0  # the number of the first position
    max_positions: int = 1024  # learned positions that there are, from the first on; the others have no limit
    relative_buckets: int = 32  # of distances that share a bias
    relative_distance: int = 128  # from which on all distances share one
    relative_per_layer: bool = False  # every layer has biases of its own
    rotary_base: float = 10_000.0  # of rotary positions: 2 pi times it is about the longest wavelength
    token_types: int = 0  # kinds of source tokens, each with a vector that is added; 0 is none
    share_embeddings: Literal["all", "target", "inputs", "none"] = (
        "all"  # all: source, target and output are one matrix; target: target and output; inputs: source and target
    )
    embedding_norm: bool = False  # normalisation of the embedded tokens
    scale_embeddings: bool = True  # token vectors by sqrt(width)
    scale_outputs: bool = False  # features by 1 / sqrt(width) before the logits
    output_head: bool = False  # another layer before the logits: projection, activation, normalisation
    output_bias: bool = False  # a bias on the logits
    classes: int = 0  # of a classifier, in place of the vocabulary's logits; 0 is none
    pooling: Literal["first", "mean"] = "mean"  # what a classifier reads of a text: its first token, or all of them
    dropout: float = 0.1  # P_drop, on embeddings and on the output of each sublayer
    attention_dropout: float = 0.0  # on attention weights
    activation_dropout: float = 0.0  # inside the feed-forward network
    pad_id: int = 0  # padding; embeds as zero
    embed_padding: bool = False  # padding has a vector of its own, as other tokens have
    start_id: int | None = None  # what the decoder starts from; None is the padding id
    lora_rank: int = 0  # rank of the adapters beside kernels, which alone are trained then; 0 is none
    lora_alpha: float = 16.0  # what adapters give counts lora_alpha / lora_rank times
    lora_on: tuple[Projected, ...] = ("query", "value")  # the projections that have adapters
    initialisation: Literal["glorot", "depth_scaled"] = "glorot"  # depth_scaled: by 1 / sqrt(l) in the l-th layer
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32

    def __post_init__(self) -> None:
        require_positive(self, "width", "num_heads", "ffn_width", "vocab_size", "norm_epsilon", "max_positions")
        require_positive(self, "rotary_base")
        require_share(self, "dropout", "attention_dropout", "activation_dropout")
        require(self.encoder_layers >= 0, f"encoder_layers={self.encoder_layers} must not be negative")
        require(self.decoder_layers >= 0, f"decoder_layers={self.decoder_layers} must not be negative")
        require(
            self.encoder_layers + self.decoder_layers > 0,
            "encoder_layers=0 and decoder_layers=0: a model needs a layer",
        )
        require(
            not self.classes or (self.classes > 1 and not self.decoder_layers),
            f"classes={self.classes}, decoder_layers={self.decoder_layers}: a classifier has 2 classes or more, and "
            "an encoder alone",
        )
        require(
            self.encoder_layers > 0 or not self.token_types,
            f"token_types={self.token_types}: kinds of source tokens, but encoder_layers=0",
        )
        if self.head_width is None:
            require(
                self.width % self.num_heads == 0,
                f"num_heads={self.num_heads} does not divide width={self.width}; choose others, or set head_width",
            )
        else:
            require_positive(self, "head_width")
        require(
            self.kv_heads is None or (self.kv_heads > 0 and self.num_heads % self.kv_heads == 0),
            f"kv_heads={self.kv_heads} does not divide num_heads={self.num_heads}",
        )
        require(
            self.channels % 2 == 0 or self.positions != "rotary",
            f"head_width={self.channels} is odd; rotary positions turn pairs of channels and need an even one",
        )
        require(
            self.width % 2 == 0 or self.positions in ("learned", "relative", "rotary"),
            f"width={self.width} is odd; sinusoidal positions pair sines with cosines and need an even width",
        )
        require(
            self.source_vocab_size is None or self.share_embeddings in ("target", "none"),
            f"source_vocab_size={self.source_vocab_size} needs share_embeddings of 'target' or 'none'",
        )
        for name, token in (("pad_id", self.pad_id), ("start_id", self.start)):
            require(0 <= token < self.vocab_size, f"{name}={token} is not in the vocabulary of {self.vocab_size}")
        require_positive(self, "lora_alpha")
        require(bool(self.lora_on) or not self.lora_rank, f"lora_rank={self.lora_rank}, but lora_on names nothing")
        for name in ("position_offset", "token_types", "lora_rank"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)} must not be negative")
        require(
            self.relative_buckets >= 4 and self.relative_buckets % 4 == 0,
            f"relative_buckets={self.relative_buckets} must be a multiple of 4: two directions, near and far",
        )
        require(
            self.relative_distance > self.relative_buckets,
            f"relative_distance={self.relative_distance} must be above relative_buckets={self.relative_buckets}",
        )

    @property
    def start(self) -> int:
        """What the decoder starts from."""
        return self.pad_id if self.start_id is None else self.start_id

    def rank_of(self, projection: str) -> int:
        """The rank of the adapter beside a projection, by its name; 0 is none."""
        return self.lora_rank if projection in self.lora_on else 0

    @property
    def lora_scale(self) -> float:
        """How much counts what adapters give."""
        return self.lora_alpha / self.lora_rank if self.lora_rank else 0.0

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values: G."""
        return self.num_heads if self.kv_heads is None else self.kv_heads

    @property
    def channels(self) -> int:
        """Channels of one head: d_k of the paper."""
        return self.width // self.num_heads if self.head_width is None else self.head_width
