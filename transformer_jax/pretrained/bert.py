"""BERT and RoBERTa with their heads for masked tokens: an encoder alone, post-norm, learned positions."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained.family import Family
from transformer_jax.pretrained.names import Name, norm, projection
from transformer_jax.pretrained.settings import Settings, their_activation
from transformer_jax.pretrained.words import Sides, Words

_Offset = Callable[[int], int]  # the first position, by the padding id


def _config(settings: Settings, untied: bool, *, pad: int, offset: _Offset) -> ModelConfig:
    settings.only("is_decoder", False)
    settings.only("position_embedding_type", "absolute")
    settings.only("tie_word_embeddings", True)
    pad_id = settings.number("pad_token_id", pad)
    return ModelConfig(
        encoder_layers=settings.number("num_hidden_layers"),
        decoder_layers=0,
        width=settings.number("hidden_size"),
        num_heads=settings.number("num_attention_heads"),
        ffn_width=settings.number("intermediate_size"),
        vocab_size=settings.number("vocab_size"),
        activation=settings.activation("hidden_act", "gelu"),
        attention_bias=True,
        norm_epsilon=settings.rate("layer_norm_eps", 1e-12),
        positions="learned",
        position_offset=offset(pad_id),
        max_positions=settings.number("max_position_embeddings", 512) - offset(pad_id),
        token_types=settings.number("type_vocab_size", 2),
        embedding_norm=True,
        scale_embeddings=False,
        output_head=True,
        output_bias=True,
        dropout=settings.rate("hidden_dropout_prob", 0.1),
        attention_dropout=settings.rate("attention_probs_dropout_prob", 0.1),
        pad_id=pad_id,
        embed_padding=True,
    )


def _settings(config: ModelConfig, *, model_type: str) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "num_hidden_layers": config.encoder_layers,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_width,
        "vocab_size": config.vocab_size,
        "hidden_act": their_activation(config.activation),
        "layer_norm_eps": config.norm_epsilon,
        "max_position_embeddings": config.max_positions + config.position_offset,
        "type_vocab_size": config.token_types,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "pad_token_id": config.pad_id,
        "tie_word_embeddings": True,
    }


def _names(config: ModelConfig, *, body: str, head: str, bias: str, output_norm: str) -> list[Name]:
    depth, block, ours = config.encoder_layers, f"{body}.encoder.layer.{{layer}}", "encoder/layers"
    embeddings = f"{body}.embeddings"
    return [
        Name(f"{embeddings}.word_embeddings.weight", "embedding/table"),
        Name(f"{embeddings}.position_embeddings.weight", "source_positions/table"),
        Name(f"{embeddings}.token_type_embeddings.weight", "token_types/table"),
        *norm(f"{embeddings}.LayerNorm", "source_norm"),
        *(
            name
            for own in ("query", "key", "value")
            for name in projection(f"{block}.attention.self.{own}", f"{ours}/self_attention/{own}", depth)
        ),
        *projection(f"{block}.attention.output.dense", f"{ours}/self_attention/out", depth),
        *norm(f"{block}.attention.output.LayerNorm", f"{ours}/self_attention_frame/norm", depth),
        *projection(f"{block}.intermediate.dense", f"{ours}/feed_forward/inner", depth),
        *projection(f"{block}.output.dense", f"{ours}/feed_forward/outer", depth),
        *norm(f"{block}.output.LayerNorm", f"{ours}/feed_forward_frame/norm", depth),
        *projection(f"{head}.dense", "output_head/projection", None),
        *norm(f"{head}.{output_norm}", "output_head/norm"),
        Name(bias, "output_bias"),
    ]


def _frames(words: Words, config: ModelConfig) -> Sides:
    """One token stands before every text, and one behind it."""
    eos, before = words.id("[SEP]", "</s>"), (words.id("[CLS]", "<s>"),)
    special = replace(words.special(config, eos, before=before), eos=eos)
    return special, special


def _family(model_type: str, architecture: str, pad: int, offset: _Offset, decoder: str, **names: str) -> Family:
    body = names["body"]
    return Family(
        architecture=architecture,
        config=functools.partial(_config, pad=pad, offset=offset),
        settings=functools.partial(_settings, model_type=model_type),
        names=lambda config: _names(config, **names),
        frames=_frames,
        aliases={f"{decoder}.weight": f"{body}.embeddings.word_embeddings.weight", f"{decoder}.bias": names["bias"]},
        ignored=(rf"{body}\.pooler\..*", rf"{body}\.embeddings\.position_ids", r"cls\.seq_relationship\..*"),
    )


BERT = _family(
    "bert",
    "BertForMaskedLM",
    0,
    lambda pad_id: 0,
    "cls.predictions.decoder",
    body="bert",
    head="cls.predictions.transform",
    bias="cls.predictions.bias",
    output_norm="LayerNorm",
)
ROBERTA = _family(
    "roberta",
    "RobertaForMaskedLM",
    1,
    lambda pad_id: pad_id + 1,
    "lm_head.decoder",
    body="roberta",
    head="lm_head",
    bias="lm_head.bias",
    output_norm="layer_norm",
)
