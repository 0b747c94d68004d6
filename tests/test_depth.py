"""Deep post-norm stacks: the constants of the papers, where they go, and a hundred layers that train."""

import functools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from transformer_jax import depth
from transformer_jax.config import ModelConfig
from transformer_jax.initialisation import init_parameters
from transformer_jax.layers import EncoderLayer, Sublayer
from transformer_jax.models import Transformer

SIZES = {"width": 6, "num_heads": 2, "ffn_width": 7, "vocab_size": 11, "dropout": 0.0}
CONFIG = ModelConfig(encoder_layers=2, decoder_layers=3, **SIZES)
DEEP = replace(CONFIG, norm="deep")


@pytest.mark.parametrize(
    ("layers", "side", "alpha", "beta"),
    [
        ((8, 0), "encoder", 2.0, 64**-0.25),  # (2N)^(1/4), (8N)^(-1/4)
        ((0, 8), "decoder", 2.0, 64**-0.25),
        ((16, 16), "encoder", 0.81 * 16 ** (5 / 16), 0.87 * 16 ** (-5 / 16)),  # (N^4 M)^(1/16)
        ((2, 16), "encoder", 0.81 * 2**0.5, 0.87 * 2**-0.5),
        ((2, 27), "decoder", 3.0, 324**-0.25),  # (3M)^(1/4), (12M)^(-1/4)
    ],
)
def test_the_table_of_deepnorm(layers, side, alpha, beta):
    config = ModelConfig(encoder_layers=layers[0], decoder_layers=layers[1], norm="deep")
    assert depth.residual_weight(config, side) == pytest.approx(alpha)
    assert depth.initial_gains(config, side, "outer") == pytest.approx([beta] * layers[side == "decoder"])


def test_a_sublayer_weighs_its_input():
    frame, x = Sublayer(DEEP, 2.0), jnp.array([[[1.0, 0, 0, 0, 0, 0]]])
    params = frame.init(jax.random.key(0), x, lambda y: (y, None), deterministic=True)
    output, _ = frame.apply(params, x, lambda y: (jnp.roll(y, 1, -1), None), deterministic=True)
    total = np.array([2.0, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(output[0, 0], (total - 0.5) / total.std(), atol=1e-5)


def test_layers_weigh_by_their_side():
    x = jax.random.normal(jax.random.key(1), (1, 3, 6))
    layer = EncoderLayer(DEEP)
    params = nn.meta.unbox(layer.init(jax.random.key(0), x))
    silent = jax.tree_util.tree_map_with_path(lambda path, p: p * (path[-1].key != "kernel"), params)
    scaled = EncoderLayer(CONFIG).apply(silent, x)[0]  # with sublayers of zero a weight is lost in the normalisation
    np.testing.assert_allclose(layer.apply(silent, x)[0], scaled, atol=1e-4)
    assert np.abs(layer.apply(params, x)[0] - EncoderLayer(CONFIG).apply(params, x)[0]).max() > 1e-2


def ratios(config):
    """Fresh kernels over those of the default, in each layer; all else is the same to the bit."""
    ours, plain = (flatten_dict(init_parameters(one, jax.random.key(3))) for one in (config, CONFIG))
    found = {}
    for path, leaf in ours.items():
        ratio = np.asarray(leaf / jnp.where(plain[path] == 0, 1, plain[path]))
        if path[1] == "layers" and path[-1] == "kernel":
            assert np.ptp(ratio, axis=(1, 2)).max() < 1e-5
            found[path[0], path[-2]] = ratio[:, 0, 0]
        else:
            np.testing.assert_array_equal(leaf, plain[path])
    return found


def test_deepnorm_makes_values_outputs_and_feed_forward_small():
    found, beta = ratios(DEEP), {"encoder": 0.87 * 48 ** (-1 / 16), "decoder": 36**-0.25}
    for (side, projection), gains in found.items():
        small = projection in ("value", "out", "inner", "outer")
        np.testing.assert_allclose(gains, beta[side] if small else 1.0, rtol=1e-5)


def test_depth_scaling_is_by_the_root_of_the_layer():
    for (side, _), gains in ratios(replace(CONFIG, initialisation="depth_scaled")).items():
        expected = [1, 2**-0.5] if side == "encoder" else [1, 2**-0.5, 3**-0.5]
        np.testing.assert_allclose(gains, expected, rtol=1e-5)


@functools.cache
def loss_of_a_hundred_layers(steps=50, **parts):
    """The loss behind so many steps: a decoder is to tell the token before the last, of ten; to guess gives 2.30."""
    config = ModelConfig(
        encoder_layers=0, decoder_layers=100, width=16, num_heads=2, ffn_width=32, vocab_size=11, dropout=0.0, **parts
    )
    model, optimizer = Transformer(config, unroll=1), optax.adam(3e-3)
    tokens = jax.random.randint(jax.random.key(0), (8, 6), 1, 11).at[:, 0].set(0)

    def loss(params):
        logits, _ = model.apply({"params": params}, tokens, method="decode")
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, 2:], tokens[:, 1:-1]).mean()

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    params = init_parameters(config, jax.random.key(0))
    return float(jax.jit(lambda p: loss(jax.lax.fori_loop(0, steps, step, (p, optimizer.init(p)))[0]))(params))


def test_a_hundred_post_norm_layers_train_with_deepnorm_and_not_without():
    assert loss_of_a_hundred_layers(norm="post") > 2.0
    assert loss_of_a_hundred_layers(norm="deep") < 1.2


@pytest.mark.slow
def test_a_hundred_post_norm_layers_train_with_depth_scaling():
    assert loss_of_a_hundred_layers(initialisation="depth_scaled") < 0.8
