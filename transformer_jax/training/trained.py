"""Which parameters are trained, and how fast each of them is."""

import fnmatch
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import numpy as np

from transformer_jax.config import ModelConfig, TrainingConfig
from transformer_jax.errors import InputError
from transformer_jax.initialisation import initialise
from transformer_jax.models import Parameters

Rates: TypeAlias = Any  # a tree as that of the parameters, of factors: one number, or [L] where layers are stacked

_STACKED = "layers"  # the key under which they are


def rates_of(model: ModelConfig, training: TrainingConfig) -> Rates | None:
    """The factor that the learning rate of each parameter gets, 0 where it is frozen; None where all of them get 1.

    A name is the path of a parameter, where the number of the layer stands behind `layers`:
    `encoder/layers/0/self_attention/query/kernel`. Of a model with adapters, they alone are trained.

    Args:
        model: the model.
        training: its patterns, as of shells, where * is also what has slashes in it.

    Raises:
        InputError: on a pattern that fits no parameter, and where nothing is left to be trained.
    """
    if not (training.frozen or training.learning_rates or model.lora_rank):
        return None
    shapes = jax.eval_shape(lambda: nn.meta.unbox(initialise(model, jax.random.key(0))))
    paths, structure = jax.tree.flatten_with_path(shapes)
    names = [_names([str(key.key) for key in path], leaf.shape) for path, leaf in paths]
    everything = [name for own in names for name in own]
    _check(everything, "training.frozen", training.frozen)
    _check(everything, "training.learning_rates", [pattern for pattern, _ in training.learning_rates])
    factors = [np.array([_factor(name, model, training) for name in own], np.float32) for own in names]
    if not any(own.any() for own in factors):
        raise InputError(f"training.frozen={training.frozen}: nothing is left to be trained")
    return jax.tree.unflatten(structure, factors)


def _names(path: Sequence[str], shape: Sequence[int]) -> list[str]:
    if _STACKED not in path:
        return ["/".join(path)]
    place = path.index(_STACKED) + 1
    return ["/".join([*path[:place], str(layer), *path[place:]]) for layer in range(shape[0])]


def _factor(name: str, model: ModelConfig, training: TrainingConfig) -> float:
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in training.frozen):
        return 0.0
    if model.lora_rank and not name.endswith(("/lora_a", "/lora_b")):
        return 0.0
    found = (factor for pattern, factor in training.learning_rates if fnmatch.fnmatchcase(name, pattern))
    return next(found, 1.0)


def _check(names: Sequence[str], flag: str, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise InputError(f"{flag}: {pattern!r} fits no parameter; there are {names[0]}, {names[-1]} and others")


def trained(rates: Rates | None, params: Parameters) -> Parameters:
    """The parameters with None in place of those that are frozen as a whole."""
    if rates is None:
        return params
    return jax.tree.map(lambda rate, leaf: leaf if rate.any() else None, rates, params)


def joined(part: Parameters, params: Parameters) -> Parameters:
    """The parameters with those of a part in their places."""
    return jax.tree.map(lambda new, old: old if new is None else new, part, params, is_leaf=lambda node: node is None)


def scaled(rates: Rates | None, updates: Parameters) -> Parameters:
    """Updates times their factors; None stays None."""
    if rates is None:
        return updates

    def scale(rate: np.ndarray, update: jax.Array | None) -> jax.Array | None:
        if update is None or (rate == 1).all():
            return update
        return update * (rate[0] if len(rate) == 1 else rate.reshape(-1, *[1] * (update.ndim - 1)))

    return jax.tree.map(scale, rates, updates)


def moving(rates: Rates | None, gradients: Parameters) -> Parameters:
    """Gradients, zero for layers that are frozen among others that are not."""
    if rates is None:
        return gradients
    return scaled(jax.tree.map(lambda rate: (rate > 0).astype(np.float32), rates), gradients)


def share_trained(rates: Rates | None, shapes: Parameters) -> tuple[int, int]:
    """How many numbers are trained, and how many there are."""
    leaves = jax.tree.leaves(shapes)
    total = sum(math.prod(leaf.shape) for leaf in leaves)
    if rates is None:
        return total, total
    pairs = zip(jax.tree.leaves(rates), leaves, strict=True)
    return sum(math.prod(leaf.shape) * int((rate > 0).sum()) // len(rate) for rate, leaf in pairs), total
