"""A Transformer as decoding wants it: a step function over a cache."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer_jax.attention import Cache
from transformer_jax.decoding import StepModel
from transformer_jax.layers import DecoderAttention
from transformer_jax.models import Parameters, Transformer
from transformer_jax.projection import transpose_kernels
from transformer_jax.sizes import Size


def decoding_parameters(params: Parameters, dtype: str = "float32") -> Parameters:
    """The parameters as `Transformer.step` wants them, for a model that computes in this dtype.

    The decoder's layers stand one by one instead of stacked: a loop that slices stacked parameters at every step runs
    1.6 to 1.8 times slower on a CPU. Their kernels lie transposed (see `Projection`), and in `dtype`, so that no step
    has to cast them. So do those of the encoder in bfloat16, for products that take half the time on a CPU (see
    `transposed_product`); in float32 it gains nothing.
    """
    decoder = dict(params["decoder"])
    stacked = decoder.pop("layers")
    depth = jax.tree.leaves(stacked)[0].shape[0]
    layers = {
        f"layer_{index}": transpose_kernels(jax.tree.map(lambda leaf, index=index: leaf[index], stacked), dtype)
        for index in range(depth)
    }
    changed = {"decoder": {**decoder, **layers}}
    if dtype != "float32" and "encoder" in params:
        changed["encoder"] = transpose_kernels(params["encoder"], dtype)
    return {**params, **changed}


def step_model(model: Transformer, params: Parameters, eos_id: int = 1) -> StepModel:
    """The step of a model whose parameters are those of `decoding_parameters`.

    With an encoder its cache comes from `start_cache`; without one from `start_cache` with no source, and prompts are
    prefixes. Padding is never emitted; where it has a vector of its own, it keeps its share of the probability, as
    other toolkits have it.
    """

    def step(tokens: Int[Array, "R T"], cache: Cache) -> tuple[Float[Array, "R T V"], Cache]:
        logits, cache, _ = apply(model, params, tokens, cache, method="step")
        return logits, cache

    config = model.config
    return StepModel(
        step,
        Cache.reorder,
        pad_id=config.pad_id,
        eos_id=eos_id,
        rewind=Cache.rewind,
        start_id=config.start,
        counts_padding=config.embed_padding,
    )


def start_cache(
    model: Transformer,
    params: Parameters,
    source: Int[Array, "B S"] | None,
    *,
    rows: Size,
    beams: int,
    capacity: int,
    ahead: int = 0,
) -> Cache:
    """An empty cache over the encoded source, for `rows` hypotheses of up to `capacity` tokens.

    Args:
        model: the model.
        params: parameters as `decoding_parameters` gives them.
        source: ids, padded; None for a model without an encoder.
        rows: a multiple of B and of `beams`; those of a sentence lie side by side.
        beams: rows, side by side, that are exchanged among each other, as `Strategy.beams` says.
        capacity: tokens of each.
        ahead: more tokens, which are read ahead and forgotten, as in speculative decoding.
    """
    room = {"rows": rows, "beams": beams, "capacity": capacity, "ahead": ahead}
    if source is None:
        return apply(model, params, None, None, method="start_cache", **room)
    segments = (source != model.config.pad_id).astype(jnp.int32)
    memory, _ = apply(model, params, source, segments, method="encode")
    return apply(model, params, memory, segments, method="start_cache", **room)


def read_target(
    model: Transformer, params: Parameters, source: Int[Array, "B S"], target: Int[Array, "B T"]
) -> DecoderAttention:
    """What every position of a target attends to; `target` is the decoder's input, its start first."""
    cache = start_cache(model, params, source, rows=target.shape[0], beams=1, capacity=target.shape[1])
    _, _, attention = apply(model, params, target, cache, return_attention=True, method="step")
    return attention


def apply(model: Transformer, params: Parameters, *args: Any, method: str, **flags: Any) -> Any:
    """A method of a model, with these parameters."""
    return model.apply({"params": params}, *args, **flags, method=method)
