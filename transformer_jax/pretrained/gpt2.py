"""GPT-2: a decoder alone, pre-norm, learned positions; queries, keys and values of a layer lie in one matrix."""

from dataclasses import replace
from typing import Any

import numpy as np

from transformer_jax.config import ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.pretrained.family import Family
from transformer_jax.pretrained.names import Name, norm
from transformer_jax.pretrained.settings import Settings, their_activation
from transformer_jax.pretrained.words import Sides, Words


def _config(settings: Settings, untied: bool) -> ModelConfig:
    settings.only("scale_attn_by_inverse_layer_idx", False)
    settings.only("add_cross_attention", False)
    settings.only("scale_attn_weights", True)
    settings.only("tie_word_embeddings", True)
    width, words = settings.number("n_embd"), settings.number("vocab_size")
    if settings.rate("embd_pdrop", 0.1) != settings.rate("resid_pdrop", 0.1):
        raise InputError(f"{settings.origin}: embd_pdrop and resid_pdrop: here they must be the same")
    return ModelConfig(
        encoder_layers=0,
        decoder_layers=settings.number("n_layer"),
        width=width,
        num_heads=settings.number("n_head"),
        ffn_width=settings.number("n_inner", 4 * width),
        # There is no padding: it is one more token, of zeros, which a bias keeps from ever coming out.
        vocab_size=words + 1,
        pad_id=words,
        output_bias=True,
        start_id=settings.number("bos_token_id", words - 1),
        activation=settings.activation("activation_function", "gelu_new"),
        attention_bias=True,
        norm="pre",
        norm_epsilon=settings.rate("layer_norm_epsilon", 1e-5),
        positions="learned",
        max_positions=settings.number("n_positions"),
        scale_embeddings=False,
        dropout=settings.rate("resid_pdrop", 0.1),
        attention_dropout=settings.rate("attn_pdrop", 0.1),
    )


def _settings(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "n_layer": config.decoder_layers,
        "n_embd": config.width,
        "n_head": config.num_heads,
        "n_inner": config.ffn_width,
        "n_positions": config.max_positions,
        "vocab_size": config.vocab_size - 1,
        "bos_token_id": config.start,
        "activation_function": their_activation(config.activation),
        "layer_norm_epsilon": config.norm_epsilon,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
    }


def _names(config: ModelConfig) -> list[Name]:
    depth, block, ours = config.decoder_layers, "transformer.h.{layer}", "decoder/layers"
    names = [
        Name("transformer.wte.weight", "embedding/table", padded=1),
        Name("transformer.wpe.weight", "target_positions/table"),
        *norm("transformer.ln_f", "decoder/norm"),
        *norm(f"{block}.ln_1", f"{ours}/self_attention_frame/norm", depth),
        *norm(f"{block}.ln_2", f"{ours}/feed_forward_frame/norm", depth),
    ]
    places: dict[str, tuple[str, tuple[int, int]]] = {
        "self_attention/query": ("attn.c_attn", (0, 3)),
        "self_attention/key": ("attn.c_attn", (1, 3)),
        "self_attention/value": ("attn.c_attn", (2, 3)),
        "self_attention/out": ("attn.c_proj", (0, 1)),
        "feed_forward/inner": ("mlp.c_fc", (0, 1)),
        "feed_forward/outer": ("mlp.c_proj", (0, 1)),
    }
    for own, (theirs, part) in places.items():
        for leaf, tensor in (("kernel", "weight"), ("bias", "bias")):
            names.append(Name(f"{block}.{theirs}.{tensor}", f"{ours}/{own}/{leaf}", depth, part=part))
    return names


def _constants(config: ModelConfig) -> dict[str, np.ndarray]:
    return {"output_bias": np.where(np.arange(config.vocab_size) == config.pad_id, np.float32(-1e9), np.float32(0))}


def _frames(words: Words, config: ModelConfig) -> Sides:
    """The end stands behind a text; nothing is unknown."""
    special = replace(words.special(config, config.vocab_size - 2), unk=None)
    return special, special


GPT2 = Family(
    architecture="GPT2LMHeadModel",
    config=_config,
    settings=_settings,
    names=_names,
    frames=_frames,
    aliases={"lm_head.weight": "transformer.wte.weight"},
    ignored=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
    prefix="transformer.",
    unprefixed=("lm_head.",),
    constants=_constants,
)
