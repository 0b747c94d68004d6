"""Several models as one."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from transformer_jax.decoding.model import StepModel
from transformer_jax.errors import InputError

Mean: TypeAlias = Literal["probabilities", "log_probabilities"]


def ensemble(
    models: Sequence[StepModel], weights: Sequence[float] | None = None, mean: Mean = "probabilities"
) -> StepModel:
    """The model whose distribution is the weighted mean of those of several; its cache is the tuple of theirs.

    The mean of log-probabilities is normalised again. Padding has no share in any of them. One model stays as it is.

    Args:
        models: models of one target vocabulary.
        weights: one for each, of any sum; None is equal ones.
        mean: of what.

    Raises:
        InputError: when there is no model, their special ids differ, or the weights are not one for each, none of
            them below 0 and some above.
    """
    if not models:
        raise InputError("an ensemble needs a model")
    if len({model.special for model in models}) > 1:
        raise InputError("the models of an ensemble have different padding or end tokens, or other starts")
    weights = check_weights(len(models), weights)
    shares = jnp.asarray(weights, jnp.float32)[None, None, None] / sum(weights)  # -> [1 1 1 M]

    if len(models) == 1:
        return _alone(models[0])

    def step(tokens: Int[Array, "R T"], caches: PyTree) -> tuple[Float[Array, "R T V"], PyTree]:
        stepped = [model.step(tokens, cache) for model, cache in zip(models, caches, strict=True)]
        log_probs = [
            jax.nn.log_softmax(logits.astype(jnp.float32)) if model.counts_padding else model.log_probs(logits)
            for model, (logits, _) in zip(models, stepped, strict=True)
        ]
        stacked = jnp.stack(log_probs, axis=-1)
        if mean == "probabilities":
            combined = jax.nn.logsumexp(stacked, axis=-1, b=shares)
        else:
            combined = jnp.where(shares > 0, shares * stacked, 0.0).sum(axis=-1)
        return combined, tuple(cache for _, cache in stepped)

    def select(caches: PyTree, rows: Int[Array, " R"]) -> PyTree:
        return tuple(model.select(cache, rows) for model, cache in zip(models, caches, strict=True))

    def rewind(caches: PyTree, lengths: Int[Array, " R"]) -> PyTree:
        return tuple(model.rewind(cache, lengths) for model, cache in zip(models, caches, strict=True))

    return dataclasses.replace(models[0], step=step, select=select, rewind=rewind)


def _alone(model: StepModel) -> StepModel:
    """The model, its cache in a tuple of one."""

    def step(tokens: Int[Array, "R T"], caches: PyTree) -> tuple[Float[Array, "R T V"], PyTree]:
        logits, cache = model.step(tokens, caches[0])
        return logits, (cache,)

    return dataclasses.replace(
        model,
        step=step,
        select=lambda caches, rows: (model.select(caches[0], rows),),
        rewind=lambda caches, lengths: (model.rewind(caches[0], lengths),),
    )


def check_weights(count: int, weights: Sequence[float] | None) -> Sequence[float]:
    """The weights of so many models; equal ones where there are none.

    Raises:
        InputError: when they are not one for each, none of them below 0 and some above.
    """
    weights = [1.0] * count if weights is None else weights
    if len(weights) != count or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise InputError(f"weights={list(weights)}: an ensemble of {count} needs as many, 0 or more, not all 0")
    return weights
