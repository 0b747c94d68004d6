"""A model trained here as one of a public family: post-norm as Marian, pre-norm as Pegasus."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from transformer_jax.config import ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.initialisation import initialise
from transformer_jax.models import Parameters
from transformer_jax.pretrained.checkpoint import Checkpoint
from transformer_jax.pretrained.fairseq import EPSILON
from transformer_jax.pretrained.names import flat, nested

_NEVER = -1e9  # the logit of padding, which has no probability here


def published(config: ModelConfig, params: Parameters, eos_id: int, longest: int) -> Checkpoint:
    """The same model as a checkpoint of Marian or Pegasus, which other libraries open.

    Interleaved sinusoids become sines before cosines: the channels change places in all that reads or writes them.
    Biases that there are not are zero. The variance of a normalisation gets 1e-5 added there, whatever it was here,
    which changes a logit in about its sixth digit.

    Args:
        config: of the model.
        params: of the model.
        eos_id: the end token.
        longest: positions that the other library is to have.

    Raises:
        InputError: naming a part of the model that neither family has.
    """
    _check(config)
    own = replace(
        config,
        positions="halves",
        attention_bias=True,
        output_bias=True,
        embed_padding=True,
        norm_epsilon=EPSILON,
        max_positions=longest,
        start_id=config.start,
    )
    leaves = {path: np.asarray(leaf) for path, leaf in flat(params).items()}
    if config.positions == "interleaved":
        leaves = _permuted(config, leaves, np.r_[0 : config.width : 2, 1 : config.width : 2])
    wanted = flat(jax.eval_shape(lambda: nn.meta.unbox(initialise(own, jax.random.key(0)))))
    absent = {path: np.zeros(leaf.shape, np.float32) for path, leaf in wanted.items() if path not in leaves}
    leaves = absent | leaves
    if not config.embed_padding:
        leaves["embedding/table"] = _with(leaves["embedding/table"], config.pad_id, 0.0)
        leaves["output_bias"] = _with(leaves["output_bias"], config.pad_id, _NEVER)
    model_type = "marian" if config.norm == "post" else "pegasus"
    settings = {"eos_token_id": eos_id, "forced_eos_token_id": None}
    return Checkpoint(model_type, own, nested(jax.tree.map(jnp.asarray, leaves)), settings)


def _with(leaf: np.ndarray, row: int, value: float) -> np.ndarray:
    changed = leaf.copy()
    changed[row] = value
    return changed


def _check(config: ModelConfig) -> None:
    needed: dict[str, tuple[Any, ...]] = {
        "positions": ("interleaved", "halves"),
        "position_offset": (0,),
        "share_embeddings": ("all",),
        "norm_type": ("layer",),
        "gated": (False,),
        "ffn_bias": (True,),
        "scale_attention": (True,),
        "scale_outputs": (False,),
        "embedding_norm": (False,),
        "output_head": (False,),
        "token_types": (0,),
    }
    for name, allowed in needed.items():
        if getattr(config, name) not in allowed:
            told = " or ".join(repr(value) for value in allowed)
            raise InputError(
                f"model.{name}={getattr(config, name)!r}: Marian and Pegasus, as which a model goes out, have {told}"
            )
    if not config.encoder_layers or not config.decoder_layers:
        raise InputError(
            "a model goes out as Marian or Pegasus, which have an encoder and a decoder; this one lacks one"
        )
    if config.channels * config.num_heads != config.width:
        raise InputError(f"model.head_width={config.head_width}: Marian and Pegasus have width / num_heads")


def _permuted(
    config: ModelConfig, leaves: dict[str, np.ndarray], order: Int[np.ndarray, " D"]
) -> dict[str, np.ndarray]:
    """The parameters with all channels that are d_model of the model in another order, which changes no output."""
    boxed = jax.eval_shape(lambda: initialise(config, jax.random.key(0)))
    paths, _ = jax.tree.flatten_with_path(boxed, is_leaf=lambda node: isinstance(node, nn.LogicallyPartitioned))
    axes = {"/".join(key.key for key in path): box.names for path, box in paths}
    for path, leaf in leaves.items():
        for axis, name in enumerate(axes[path]):
            leaf = np.take(leaf, order, axis=axis) if name == "width" else leaf
        leaves = {**leaves, path: leaf}
    return leaves
