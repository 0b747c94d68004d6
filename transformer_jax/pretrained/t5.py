"""T5, T5 v1.1, mT5, FLAN-T5, UMT5 and MADLAD-400: pre-norm by root mean squares, relative positions, no biases."""

import functools
from typing import Any

from transformer_jax.config import ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.pretrained.family import Family
from transformer_jax.pretrained.files import Files
from transformer_jax.pretrained.names import Name, norm, projection
from transformer_jax.pretrained.settings import Settings, their_activation
from transformer_jax.pretrained.words import ended_by

_MOST_EXTRA = 10_000  # ids that stand for gaps; of what is published 300


def _activation(settings: Settings, default: str) -> tuple[str, bool]:
    """Our name of the activation, and whether it gates."""
    form = settings.text("feed_forward_proj", default)
    gated = form.startswith("gated-")
    name = form.removeprefix("gated-")
    inner = Settings({"feed_forward_proj": name}, settings.origin)
    # What the first authors call gelu is the approximation, but only with a gate.
    return ("gelu" if gated and name == "gelu" else inner.activation("feed_forward_proj", "relu")), gated


def _config(settings: Settings, untied: bool, *, per_layer: bool, scales: bool, form: str) -> ModelConfig:
    # Transformers 5 writes of all that they are tied; before it, what was not to scale its outputs said it was not.
    unscaled = settings.fields.get("tie_word_embeddings") is False
    activation, gated = _activation(settings, form)
    layers, dropout = settings.number("num_layers"), settings.rate("dropout_rate", 0.1)
    fields: dict[str, Any] = {
        "encoder_layers": layers,
        "decoder_layers": settings.number("num_decoder_layers", layers),
        "width": settings.number("d_model"),
        "num_heads": settings.number("num_heads"),
        "head_width": settings.number("d_kv"),
        "ffn_width": settings.number("d_ff"),
        "vocab_size": settings.number("vocab_size"),
        "activation": activation,
        "gated": gated,
        "ffn_bias": False,
        "scale_attention": False,
        "norm": "pre",
        "norm_type": "rms",
        "norm_epsilon": settings.rate("layer_norm_epsilon", 1e-6),
        "positions": "relative",
        "relative_buckets": settings.number("relative_attention_num_buckets", 32),
        "relative_distance": settings.number("relative_attention_max_distance", 128),
        "relative_per_layer": per_layer,
        "share_embeddings": "inputs" if untied else "all",
        "scale_embeddings": False,
        "scale_outputs": scales and bool(settings.get("scale_decoder_outputs", not unscaled)),
        "dropout": dropout,
        "attention_dropout": dropout,
        "activation_dropout": dropout,
        "pad_id": settings.number("pad_token_id", 0),
        "embed_padding": True,
        "start_id": settings.number("decoder_start_token_id", settings.number("pad_token_id", 0)),
    }
    return ModelConfig(**fields)


def _settings(model_type: str, config: ModelConfig) -> dict[str, Any]:
    activation = config.activation if config.gated else their_activation(config.activation)
    return {
        "model_type": model_type,
        "is_encoder_decoder": True,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "d_model": config.width,
        "num_heads": config.num_heads,
        "d_kv": config.channels,
        "d_ff": config.ffn_width,
        "vocab_size": config.vocab_size,
        "feed_forward_proj": f"gated-{activation}" if config.gated else activation,
        "layer_norm_epsilon": config.norm_epsilon,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance,
        "scale_decoder_outputs": config.scale_outputs,
        "tie_word_embeddings": config.share_embeddings == "all",
        "dropout_rate": config.dropout,
        "pad_token_id": config.pad_id,
        "decoder_start_token_id": config.start,
    }


def _names(config: ModelConfig) -> list[Name]:
    names = [Name("shared.weight", "embedding/table")]
    if config.share_embeddings == "inputs":
        names.append(Name("lm_head.weight", "output/kernel", transposed=True))
    for side, depth in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        block = f"{side}.block.{{layer}}.layer"
        bias = f"{side}.block.{'{layer}' if config.relative_per_layer else 0}.layer.0.SelfAttention"
        names.append(
            Name(
                f"{bias}.relative_attention_bias.weight",
                f"{side}/relative/table",
                depth if config.relative_per_layer else None,
            )
        )
        sublayers = [("SelfAttention", "self_attention")]
        sublayers += [("EncDecAttention", "cross_attention")] if side == "decoder" else []
        for number, (theirs, ours) in enumerate(sublayers):
            for own in ("query", "key", "value", "out"):
                name = f"{block}.{number}.{theirs}.{own[0]}"
                names += projection(name, f"{side}/layers/{ours}/{own}", depth, bias=False)
            names += norm(f"{block}.{number}.layer_norm", f"{side}/layers/{ours}_frame/norm", depth, bias=False)
        network, number = f"{side}/layers/feed_forward", len(sublayers)
        matrices = {"wi_0": "gate", "wi_1": "inner"} if config.gated else {"wi": "inner"}
        for theirs, ours in (matrices | {"wo": "outer"}).items():
            names += projection(f"{block}.{number}.DenseReluDense.{theirs}", f"{network}/{ours}", depth, bias=False)
        names += norm(f"{block}.{number}.layer_norm", f"{network}_frame/norm", depth, bias=False)
        names += norm(f"{side}.final_layer_norm", f"{side}/norm", bias=False)
    return names


def _table(pieces: list[str], files: Files) -> list[str]:
    """Ids of the model, and behind them those that stand for gaps, the first one last."""
    settings = files.settings("tokenizer_config.json")
    extra = settings.number("extra_ids", 100)
    if not 0 <= extra <= _MOST_EXTRA:
        raise InputError(f"{settings.origin}: extra_ids={extra}: 0 to {_MOST_EXTRA:,}")
    missing = [f"<extra_id_{number}>" for number in reversed(range(extra))]
    return [*pieces, *(piece for piece in missing if piece not in pieces)]


def _family(
    model_type: str, architecture: str, *, per_layer: bool = False, scales: bool = True, form: str = "gated-gelu"
) -> Family:
    return Family(
        architecture=architecture,
        config=functools.partial(_config, per_layer=per_layer, scales=scales, form=form),
        settings=lambda config: _settings(model_type, config),
        names=_names,
        frames=ended_by(1),
        table=_table,
        aliases=dict.fromkeys(
            ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), "shared.weight"
        ),
        ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    )


T5 = _family("t5", "T5ForConditionalGeneration", form="relu")
MT5 = _family("mt5", "MT5ForConditionalGeneration", scales=False)
UMT5 = _family("umt5", "UMT5ForConditionalGeneration", per_layer=True)
