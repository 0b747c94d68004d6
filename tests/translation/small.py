"""A model of a few thousand numbers, whose outputs are all different."""

import functools

import jax

from transformer_jax.config import ModelConfig
from transformer_jax.data.tokenizer import EOS_ID
from transformer_jax.initialisation import init_parameters

MODEL = ModelConfig(
    encoder_layers=1,
    decoder_layers=2,
    width=10,
    num_heads=5,
    ffn_width=14,
    vocab_size=29,
    source_vocab_size=31,
    share_embeddings="none",
    output_bias=True,
)
EXTRA = 7
ALPHA = 0.6
MOST_BEAMS = 3
LONG = "cab bead " * 40  # more pieces than a full batch is wide


@functools.cache
def large_parameters(seed):
    """Larger than fresh ones: outputs differ much."""
    return jax.tree.map(lambda leaf: 2.5 * leaf, init_parameters(MODEL, jax.random.key(seed)))


def parameters(seed=4, favoured=EOS_ID, by=7.0):
    """With one token favoured; the end token, by this much, gives outputs of various lengths."""
    params = large_parameters(seed)
    return {**params, "output_bias": params["output_bias"].at[favoured].set(by)}
