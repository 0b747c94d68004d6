"""The loss of a batch, for every kind of model: what it predicts where, and how well."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from transformer_jax.config import ModelConfig
from transformer_jax.data.batch import Batch
from transformer_jax.models import Parameters, Transformer, features_at
from transformer_jax.projection import LogitSums
from transformer_jax.training.losses import EvaluatedSums, LossSums, cross_entropy, evaluated


def batch_loss(
    model: Transformer,
    params: Parameters,
    batch: Batch,
    *,
    label_smoothing: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> LossSums:
    """The sums of the loss over a batch; with dropout where a key is given."""
    sums, weights = _predictions(model, params, batch, dropout_key)
    return cross_entropy(sums, _choices(model.config), weights, label_smoothing)


def batch_evaluation(model: Transformer, params: Parameters, batch: Batch) -> EvaluatedSums:
    """The sums of the loss over a batch, without dropout and smoothing, and how many predictions are right."""
    sums, weights = _predictions(model, params, batch, None)
    return evaluated(sums, _choices(model.config), weights)


def _choices(config: ModelConfig) -> int:
    return config.classes or config.vocab_size


def _predictions(
    model: Transformer, params: Parameters, batch: Batch, dropout_key: Key[Array, ""] | None
) -> tuple[LogitSums, Float[Array, " places"]]:
    """What a loss needs of the logits at each place where something is predicted, and the weights of these places."""
    if batch.target is None or batch.target.targets is None or batch.target.weights is None:
        raise ValueError("a batch to learn from has targets and weights on its target side")
    if (batch.source is None) is (model.config.encoder_layers > 0):
        raise ValueError("a batch has a source where its model has an encoder, and only there")
    source, target = jax.tree.map(jnp.asarray, (batch.source, batch.target))
    flags: dict[str, Any] = {"packed": batch.packed, "deterministic": dropout_key is None}

    def sums_of(model: Transformer) -> LogitSums:
        targets = target.targets.reshape(-1)
        if model.config.classes:
            return LogitSums.of(_flat(_class_logits(model, source, target, flags)), targets)
        return model.logit_sums(_flat(_features(model, source, target, flags)), targets)

    rngs = None if dropout_key is None else {"dropout": dropout_key}
    sums: Any = model.apply({"params": params}, method=sums_of, rngs=rngs)
    return sums, target.weights.reshape(-1)


def _flat(x: Float[Array, "B T D"]) -> Float[Array, "N D"]:
    """With rows and positions apart, the gradient by the logits took 98 ms of a profiled step on a CPU, so 58 ms."""
    return x.reshape(-1, x.shape[-1])


def _features(model: Transformer, source: Any, target: Any, flags: dict[str, Any]) -> Float[Array, "B T D"]:
    """Of the target's tokens, given those before each and the source; or of places of the source, with no decoder."""
    memory, segments = None, None
    if source is not None:
        memory, _ = model.encode(source.tokens, source.segment_ids, source.positions, **flags)
        segments = source.segment_ids
    if memory is not None and not model.config.decoder_layers:
        return features_at(memory, target.positions)
    features, _ = model.features(
        target.tokens,
        memory,
        segments=target.segment_ids,
        positions=target.positions,
        memory_segments=segments,
        **flags,
    )
    return features


def _class_logits(model: Transformer, source: Any, target: Any, flags: dict[str, Any]) -> Float[Array, "B N C"]:
    """Of the classes of the texts in each row."""
    features, _ = model.encode(source.tokens, source.segment_ids, source.positions, **flags)
    return model.classify(
        features,
        source.segment_ids,
        target.segment_ids,
        target.positions,
        deterministic=flags["deterministic"],
    )
