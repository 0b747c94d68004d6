"""The sizes and parts of the model."""

from typing import Literal

from transformer_jax.checked import config, require, require_positive, require_share


@config
class ModelConfig:
    """The sizes and parts of the Transformer; the defaults are the paper's base model."""

    encoder_layers: int = 6  # N of the encoder; 0 makes a decoder-only model
    decoder_layers: int = 6  # N of the decoder; 0 makes an encoder-only model
    width: int = 512  # d_model
    num_heads: int = 8  # h
    head_width: int | None = None  # d_k = d_v; None is width // num_heads
    ffn_width: int = 2048  # d_ff
    vocab_size: int = 37_000  # of the target, and of the source where the two are one
    source_vocab_size: int | None = None  # None is vocab_size
    activation: Literal["relu", "gelu", "silu"] = "relu"  # of the feed-forward network
    gated: bool = False  # feed-forward with a gate: activation(x W_g) * (x W_1)
    norm: Literal["post", "pre"] = "post"  # post as published; pre for depth and easy training
    norm_epsilon: float = 1e-6  # added to the variance
    positions: Literal["interleaved", "halves", "authors", "learned"] = (
        "interleaved"  # halves: sines, then cosines; authors: halves with the frequencies of the authors' code
    )
    max_positions: int = 1024  # rows of the learned positions; sinusoids have no limit
    share_embeddings: Literal["all", "target", "none"] = (
        "all"  # all: source, target and output are one matrix; target: target and output
    )
    output_bias: bool = False  # a bias on the logits
    dropout: float = 0.1  # P_drop, on embeddings and on the output of each sublayer
    attention_dropout: float = 0.0  # on attention weights
    activation_dropout: float = 0.0  # inside the feed-forward network
    pad_id: int = 0  # embeds as zero; what the decoder starts from
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32

    def __post_init__(self) -> None:
        require_positive(self, "width", "num_heads", "ffn_width", "vocab_size", "norm_epsilon", "max_positions")
        require_share(self, "dropout", "attention_dropout", "activation_dropout")
        require(self.encoder_layers >= 0, f"encoder_layers={self.encoder_layers} must not be negative")
        require(self.decoder_layers >= 0, f"decoder_layers={self.decoder_layers} must not be negative")
        require(
            self.encoder_layers + self.decoder_layers > 0,
            "encoder_layers=0 and decoder_layers=0: a model needs a layer",
        )
        if self.head_width is None:
            require(
                self.width % self.num_heads == 0,
                f"num_heads={self.num_heads} does not divide width={self.width}; choose others, or set head_width",
            )
        else:
            require_positive(self, "head_width")
        require(
            self.width % 2 == 0 or self.positions == "learned",
            f"width={self.width} is odd; sinusoidal positions pair sines with cosines and need an even width",
        )
        require(
            self.source_vocab_size is None or self.share_embeddings != "all",
            f"source_vocab_size={self.source_vocab_size} needs share_embeddings of 'target' or 'none'",
        )
        require(
            0 <= self.pad_id < self.vocab_size, f"pad_id={self.pad_id} is not in the vocabulary of {self.vocab_size}"
        )

    @property
    def channels(self) -> int:
        """Channels of one head: d_k of the paper."""
        return self.width // self.num_heads if self.head_width is None else self.head_width
