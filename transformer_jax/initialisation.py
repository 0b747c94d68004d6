"""Fresh parameters: the same bits on any mesh, each leaf born on the devices that keep it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.tree_util import DictKey
from jaxtyping import Array, Key

from transformer_jax.config import ModelConfig
from transformer_jax.depth import initial_gains
from transformer_jax.models import Parameters, Transformer
from transformer_jax.sharding import state_shardings


def initialise(config: ModelConfig, key: Key[Array, ""]) -> Parameters:
    """Parameters in boxes that carry logical axis names; to be traced, by `init_parameters` or a training state."""
    return jax.tree.map_with_path(functools.partial(_scaled, config), _drawn(config, key))


def _scaled(config: ModelConfig, path: Sequence[Any], leaf: Array) -> Array:
    """A fresh parameter with the gain of its layer, where it is a kernel of one."""
    keys = [entry.key for entry in path if isinstance(entry, DictKey)]
    if keys[1:2] != ["layers"] or keys[-1] != "kernel":
        return leaf
    gains = initial_gains(config, keys[0], keys[-2])
    return leaf if (gains == 1).all() else leaf * gains.reshape(-1, 1, 1)


def _drawn(config: ModelConfig, key: Key[Array, ""]) -> Parameters:
    model = Transformer(config, unroll=1)  # the same bits, and of 6 + 6 layers XLA compiles one each
    tokens = jnp.zeros((1, 2), jnp.int32)
    if not config.decoder_layers:
        return model.init(key, tokens, method="encode_classes" if config.classes else "encode_logits")["params"]
    if not config.encoder_layers:
        return model.init(key, tokens, method="decode")["params"]
    return model.init(key, tokens, tokens)["params"]


def abstract_parameters(config: ModelConfig, mesh: Mesh) -> Parameters:
    """Shape, dtype and sharding of every parameter on a mesh; computes nothing."""
    boxed = jax.eval_shape(lambda: initialise(config, jax.random.key(0)))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        nn.meta.unbox(boxed),
        state_shardings(boxed, mesh),
    )


def init_parameters(config: ModelConfig, key: Key[Array, ""], mesh: Mesh | None = None) -> Parameters:
    """Fresh parameters, the same bits on any mesh, each leaf born on the devices that keep it.

    Args:
        config: sizes and parts of the model.
        key: the source of all randomness.
        mesh: the devices; None is the default device.
    """
    return _initialiser(config, mesh)(key)


@functools.cache  # many seeds, one compilation
def _initialiser(config: ModelConfig, mesh: Mesh | None) -> Callable[[Key[Array, ""]], Parameters]:
    shardings = None
    if mesh is not None:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_parameters(config, mesh))
    return jax.jit(lambda key: nn.meta.unbox(initialise(config, key)), out_shardings=shardings)
