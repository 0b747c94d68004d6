"""A model trained here as one of a public family: post-norm as Marian, pre-norm as Pegasus."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from transformer_jax.config import ModelConfig
from transformer_jax.data.tokenizer import SentencePiece, SpecialTokens, Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.initialisation import initialise
from transformer_jax.models import Parameters
from transformer_jax.pretrained.checkpoint import Checkpoint
from transformer_jax.pretrained.fairseq import EPSILON
from transformer_jax.pretrained.files import BOTH, GENERATION, json_bytes
from transformer_jax.pretrained.names import flat, nested

_NEVER = -1e9  # the logit of padding, which has no probability here


def published(config: ModelConfig, params: Parameters, special: SpecialTokens, longest: int = 1024) -> Checkpoint:
    """The same model as a checkpoint of Marian or Pegasus, which other libraries open.

    Interleaved sinusoids become sines before cosines: the channels change places in all that reads or writes them.
    Tokens get other ids: the end is first, the unknown one second and padding last, as these families have them and
    CTranslate2 takes for granted. Biases that there are not are zero. The variance of a normalisation gets 1e-5 added
    there, whatever it was here, which changes a logit in about its sixth digit.

    Args:
        config: of the model.
        params: of the model.
        special: the special tokens of outputs.
        longest: positions that the other library is to have.

    Raises:
        InputError: naming a part of the model that neither family has.
    """
    _check(config)
    words = renumbered(config.vocab_size, special)
    own = replace(
        config,
        positions="halves",
        initialisation="glorot",  # of no consequence any more
        attention_bias=True,
        output_bias=True,
        embed_padding=True,
        norm_epsilon=EPSILON,
        max_positions=longest,
        pad_id=config.vocab_size - 1,
        start_id=words.tolist().index(config.start),
    )
    leaves = {path: np.asarray(leaf) for path, leaf in flat(params).items()}
    wanted = flat(jax.eval_shape(lambda: nn.meta.unbox(initialise(own, jax.random.key(0)))))
    absent = {path: np.zeros(leaf.shape, np.float32) for path, leaf in wanted.items() if path not in leaves}
    leaves = absent | leaves
    if not config.embed_padding:
        leaves["embedding/table"] = _with(leaves["embedding/table"], config.pad_id, 0.0)
        leaves["output_bias"] = _with(leaves["output_bias"], config.pad_id, _NEVER)
    orders = {"vocab": words}
    if config.positions == "interleaved":
        orders["width"] = np.r_[0 : config.width : 2, 1 : config.width : 2]
    leaves = _permuted(own, leaves, orders)
    settings: dict[str, Any] = {"eos_token_id": 0, "forced_eos_token_id": None, "bad_words_ids": [[own.pad_id]]}
    if config.norm == "pre":  # of Pegasus; what CTranslate2 asks for
        settings |= {"normalize_before": True, "normalize_embedding": False}
    return Checkpoint(published_type(config), own, nested(jax.tree.map(jnp.asarray, leaves)), settings)


def published_type(config: ModelConfig) -> str:
    """The family that a model goes out as, by where its normalisation stands."""
    return "pegasus" if config.norm == "pre" else "marian"


def renumbered(vocab_size: int, special: SpecialTokens) -> Int[np.ndarray, " V"]:
    """The tokens in the order of their published ids: the end, the unknown one, all text, padding."""
    first = [token for token in (special.eos, special.unk) if token is not None]
    between = [token for token in range(vocab_size) if token not in (*first, special.pad)]
    return np.array([*first, *between, special.pad])


def published_files(checkpoint: Checkpoint, tokenizers: Tokenizers) -> dict[str, bytes]:
    """The files of a tokenizer trained here, as those of Marian: two SentencePiece models and a table of pieces.

    Raises:
        InputError: where both sides do not share their pieces.
    """
    source, target = tokenizers.source, tokenizers.target
    assert isinstance(source, SentencePiece)  # as those trained here
    assert isinstance(target, SentencePiece)
    if not tokenizers.joint:
        raise InputError("tokenizer.joint=False: Marian and Pegasus, as which a model goes out, have one vocabulary")
    config = checkpoint.config
    pieces = target.pieces(renumbered(config.vocab_size, target.special).tolist())
    marks = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    ids = {"eos_token_id": 0, "pad_token_id": config.pad_id, "decoder_start_token_id": config.start}
    return {
        BOTH[0]: source.model,
        BOTH[1]: target.model,
        "vocab.json": json_bytes({piece: token for token, piece in enumerate(pieces)}),
        "special_tokens_map.json": json_bytes(marks),
        "tokenizer_config.json": json_bytes(
            {**marks, "tokenizer_class": "MarianTokenizer", "model_max_length": config.max_positions}
        ),
        GENERATION: json_bytes({**ids, "bad_words_ids": [[config.pad_id]], "max_length": config.max_positions}),
    }


def _with(leaf: np.ndarray, row: int, value: float) -> np.ndarray:
    changed = leaf.copy()
    changed[row] = value
    return changed


def _check(config: ModelConfig) -> None:
    needed: dict[str, tuple[Any, ...]] = {
        "positions": ("interleaved", "halves"),
        "position_offset": (0,),
        "share_embeddings": ("all",),
        "norm": ("post", "pre"),
        "norm_type": ("layer",),
        "query_key_norm": (False,),
        "kv_heads": (None, config.num_heads),
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
    config: ModelConfig, leaves: dict[str, np.ndarray], orders: Mapping[str, Int[np.ndarray, " _"]]
) -> dict[str, np.ndarray]:
    """The parameters with the places along some logical axes in another order."""
    boxed = jax.eval_shape(lambda: initialise(config, jax.random.key(0)))
    paths, _ = jax.tree.flatten_with_path(boxed, is_leaf=lambda node: isinstance(node, nn.LogicallyPartitioned))
    axes = {"/".join(key.key for key in path): box.names for path, box in paths}
    permuted = {}
    for path, leaf in leaves.items():
        for axis, name in enumerate(axes[path]):
            leaf = np.take(leaf, orders[name], axis=axis) if name in orders else leaf
        permuted[path] = leaf
    return permuted
