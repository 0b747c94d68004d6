"""What Marian, M2M-100, BART, mBART and Pegasus share: sizes and names, those of fairseq."""

from collections.abc import Callable
from typing import Any

from transformer_jax.config import ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.pretrained.family import Family
from transformer_jax.pretrained.names import Name, norm, projection
from transformer_jax.pretrained.settings import Settings, their_activation
from transformer_jax.pretrained.words import Frames, Table, same_table

EPSILON = 1e-5  # of every normalisation
_SIDES = ("encoder", "decoder")
IGNORED = (r"model\.(encoder|decoder)\.version", r"model\.(encoder|decoder)\.embed_positions\.weights")
SINUSOIDS = r"model\.(encoder|decoder)\.embed_positions\.weight"  # of the families that compute them
UNPREFIXED = ("lm_head.", "final_logits_bias")
ALIASES = {
    "model.encoder.embed_tokens.weight": "model.shared.weight",
    "model.decoder.embed_tokens.weight": "model.shared.weight",
    "lm_head.weight": "model.shared.weight",
}


def config_of(
    settings: Settings,
    untied: bool,
    *,
    activation: str = "gelu",
    pad: int | None = None,
    start: int | None = None,
    scaled: bool = False,
    attention_dropout: float = 0.0,
    **parts: Any,
) -> ModelConfig:
    """Sizes and dropouts of a config.json, with the defaults and the parts that are those of the family.

    Raises:
        InputError: on what is missing or not supported, and on an output that is tied but has a matrix of its own.
    """
    if untied and settings.get("tie_word_embeddings", True):
        raise InputError("lm_head.weight: not the same as model.shared.weight, to which config.json ties it")
    fields: dict[str, Any] = {
        "encoder_layers": settings.number("encoder_layers"),
        "decoder_layers": settings.number("decoder_layers"),
        "width": settings.number("d_model"),
        "num_heads": settings.same("encoder_attention_heads", "decoder_attention_heads"),
        "ffn_width": settings.same("encoder_ffn_dim", "decoder_ffn_dim"),
        "vocab_size": settings.number("vocab_size"),
        "activation": settings.activation("activation_function", activation),
        "attention_bias": True,
        "norm_epsilon": EPSILON,
        "max_positions": settings.number("max_position_embeddings"),
        "scale_embeddings": bool(settings.get("scale_embedding", scaled)),
        "dropout": settings.rate("dropout", 0.1),
        "attention_dropout": settings.rate("attention_dropout", attention_dropout),
        "activation_dropout": settings.rate("activation_dropout", 0.0),
        "pad_id": settings.number("pad_token_id", pad),
        "embed_padding": True,
        "start_id": settings.number("decoder_start_token_id", start),
        "share_embeddings": "inputs" if untied else "all",
    }
    return ModelConfig(**{**fields, **parts})


def family(
    model_type: str,
    architecture: str,
    config: Callable[[Settings, bool], ModelConfig],
    frames: Frames,
    *,
    table: Table = same_table,
    ignored: tuple[str, ...] = (),
    **fields: Callable[[ModelConfig], Any],
) -> Family:
    """A family of these names; `fields` of its config.json come behind those that all have."""
    return Family(
        architecture=architecture,
        config=config,
        settings=lambda own: settings_of(model_type, own) | {name: value(own) for name, value in fields.items()},
        names=names_of,
        frames=frames,
        table=table,
        aliases=ALIASES,
        ignored=(*IGNORED, *ignored),
        prefix="model.",
        unprefixed=UNPREFIXED,
    )


def settings_of(model_type: str, config: ModelConfig) -> dict[str, Any]:
    """The fields of config.json that all of them have."""
    sides = {"layers": (config.encoder_layers, config.decoder_layers)}
    sides |= {"attention_heads": (config.num_heads,) * 2, "ffn_dim": (config.ffn_width,) * 2}
    own = {f"{side}_{name}": sizes[index] for name, sizes in sides.items() for index, side in enumerate(_SIDES)}
    return own | {
        "model_type": model_type,
        "is_encoder_decoder": True,
        "d_model": config.width,
        "vocab_size": config.vocab_size,
        "activation_function": their_activation(config.activation),
        "max_position_embeddings": config.max_positions,
        "scale_embedding": config.scale_embeddings,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "pad_token_id": config.pad_id,
        "decoder_start_token_id": config.start_id,
        "tie_word_embeddings": config.share_embeddings == "all",
    }


def names_of(config: ModelConfig) -> list[Name]:
    """All names of a model, by the parts it has."""
    names = [Name("model.shared.weight", "embedding/table")]
    if config.share_embeddings == "inputs":
        names.append(Name("lm_head.weight", "output/kernel", transposed=True))
    if config.output_bias:
        names.append(Name("final_logits_bias", "output_bias", row=True, optional=True))
    for side, prefix in (("encoder", "source"), ("decoder", "target")):
        if config.positions == "learned":
            names.append(Name(f"model.{side}.embed_positions.weight", f"{prefix}_positions/table"))
        if config.embedding_norm:
            names += norm(f"model.{side}.layernorm_embedding", f"{prefix}_norm")
        if config.norm == "pre":
            names += norm(f"model.{side}.layer_norm", f"{side}/norm")
        names += _layers(config, side)
    return names


def _layers(config: ModelConfig, side: str) -> list[Name]:
    theirs, ours = f"model.{side}.layers.{{layer}}", f"{side}/layers"
    depth = config.encoder_layers if side == "encoder" else config.decoder_layers
    attentions = {"self_attn": "self_attention"}
    if side == "decoder":
        attentions["encoder_attn"] = "cross_attention"
    names = list[Name]()
    for their_attention, our_attention in attentions.items():
        for own in ("query", "key", "value", "out"):
            theirs_own = f"{theirs}.{their_attention}.{'out' if own == 'out' else own[0]}_proj"
            names += projection(theirs_own, f"{ours}/{our_attention}/{own}", depth)
        names += norm(f"{theirs}.{their_attention}_layer_norm", f"{ours}/{our_attention}_frame/norm", depth)
    names += projection(f"{theirs}.fc1", f"{ours}/feed_forward/inner", depth)
    names += projection(f"{theirs}.fc2", f"{ours}/feed_forward/outer", depth)
    return [*names, *norm(f"{theirs}.final_layer_norm", f"{ours}/feed_forward_frame/norm", depth)]
