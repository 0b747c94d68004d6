"""Models of some hundred numbers, each compiled once."""

import functools
from dataclasses import replace

import jax
import numpy as np

from transformer_jax.config import ModelConfig
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer

CONFIG = ModelConfig(
    encoder_layers=1,
    decoder_layers=2,
    width=10,
    num_heads=2,
    head_width=3,
    ffn_width=7,
    vocab_size=13,
    max_positions=17,
    dropout=0.0,
)
PRE = replace(CONFIG, norm="pre")
DECODER_ONLY = replace(CONFIG, encoder_layers=0)


@functools.cache
def parameters(config):
    """Random parameters in which no bias is zero; drawing them by numpy saves compiling the initialisation."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        return (random.normal(0, 0.3, leaf.shape) + (path[-1].key == "scale")).astype(np.float32)

    shapes = jax.eval_shape(lambda: init_parameters(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def compiled(config, method="__call__", unroll=1, **static):
    model = Transformer(config, unroll)  # not unrolled it compiles faster
    return jax.jit(
        lambda params, *inputs, **options: model.apply({"params": params}, *inputs, **options, **static, method=method)
    )


def tokens(seed, *shape):
    """Random tokens other than padding."""
    return jax.random.randint(jax.random.key(seed), shape, 1, CONFIG.vocab_size)
