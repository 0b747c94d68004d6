"""The optimizer (5.3): learning-rate schedules, and optax chains made of an experiment's settings."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from transformer_jax.config import (
    Adafactor,
    Adam,
    AdamW,
    Experiment,
    Lion,
    Muon,
    OptimizerConfig,
    PaperSchedule,
    Schedule,
    ScheduleConfig,
    ScheduleFree,
)
from transformer_jax.errors import InputError

DECAYED = ("kernel", "table", "lora_a", "lora_b")  # weight decay is for matrices; biases and norms go without


def learning_rate(config: ScheduleConfig, width: int, total_steps: int) -> optax.Schedule:
    """The learning rate of an update as a function of the number of updates before it.

    Args:
        config: the schedule.
        width: d_model, by which the paper's schedule scales.
        total_steps: length of the run, over which linear and cosine decay.

    Raises:
        InputError: where the warm-up leaves no step for such a decay.
    """
    schedule = _paper(config, width) if isinstance(config, PaperSchedule) else _warmed_up(config, total_steps)
    return lambda count: schedule(count + 1)  # the paper counts steps from 1


def _paper(config: PaperSchedule, width: int) -> optax.Schedule:
    def schedule(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        return config.scale * width**-0.5 * jnp.minimum(step**-0.5, step * config.warmup_steps**-1.5)

    return schedule


def _warmed_up(config: Schedule, total_steps: int) -> optax.Schedule:
    decay_steps = total_steps - config.warmup_steps
    if config.kind in ("linear", "cosine") and decay_steps <= 0:
        raise InputError(
            f"schedule.warmup_steps={config.warmup_steps} leaves nothing of the {total_steps} steps of the run "
            f"for the {config.kind} decay; make it smaller"
        )
    decay = {
        "linear": lambda: optax.linear_schedule(config.peak, config.final, decay_steps),
        "cosine": lambda: optax.cosine_decay_schedule(config.peak, decay_steps, config.final / config.peak),
        "inverse_sqrt": lambda: _inverse_sqrt(config),
        "constant": lambda: optax.constant_schedule(config.peak),
    }[config.kind]()
    warmup = optax.linear_schedule(0.0, config.peak, config.warmup_steps)
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


def _inverse_sqrt(config: Schedule) -> optax.Schedule:
    start = max(config.warmup_steps, 1)

    def decay(count: Any) -> jax.Array:  # from the end of the warm-up on
        return config.peak * jnp.sqrt(start / jnp.maximum(jnp.asarray(count + config.warmup_steps, jnp.float32), start))

    return decay


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    clip_norm: float | None = None,
    scale: Callable[[Any], Any] = lambda updates: updates,
) -> optax.GradientTransformation:
    """The optimizer at the schedule's rate, behind clipping by global norm where `clip_norm` is given.

    Args:
        config: which, and its constants.
        schedule: the learning rate of an update, by the number of updates before it.
        clip_norm: the norm that all gradients together do not exceed.
        scale: what becomes of the updates last; some parameters have rates of their own.
    """
    if isinstance(config, ScheduleFree):
        update = _schedule_free(config, schedule, scale)
    else:
        update = _then(scale, _made(config, schedule))
    return update if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), update)


def _made(config: Adam | AdamW | Adafactor | Lion | Muon, schedule: optax.Schedule) -> optax.GradientTransformation:
    match config:
        case Adam():
            return optax.adam(schedule, b1=config.beta1, b2=config.beta2, eps=config.epsilon)
        case AdamW():
            moments = {"b1": config.beta1, "b2": config.beta2, "eps": config.epsilon}
            return optax.adamw(schedule, **moments, weight_decay=config.weight_decay, mask=_decayed)
        case Adafactor():
            return _adafactor(config, schedule)
        case Lion():
            moments = {"b1": config.beta1, "b2": config.beta2}
            return optax.lion(schedule, **moments, weight_decay=config.weight_decay, mask=_decayed)
        case Muon():
            return _muon(config, schedule)


def _adafactor(config: Adafactor, schedule: optax.Schedule) -> optax.GradientTransformation:
    def clipped(updates: Any, _: Any) -> Any:
        sizes = jax.tree.map(lambda size: jnp.maximum(1.0, size / config.clip), _sizes(updates))
        return jax.tree.map(jnp.divide, updates, sizes)

    def relative(updates: Any, params: Any) -> Any:  # a parameter of zeros has to leave them
        return jax.tree.map(lambda update, size: update * jnp.maximum(size, 1e-3), updates, _sizes(params))

    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=config.decay, min_dim_size_to_factor=config.least_factored),
        optax.stateless(clipped),
        optax.stateless(relative) if config.relative else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )


def _sizes(tree: Any) -> Any:
    """The root mean square of each parameter, of each layer by itself where layers are stacked."""

    def size(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        axes = range(1, leaf.ndim) if _is_stacked(path) else range(leaf.ndim)
        return jnp.sqrt(jnp.mean(jnp.square(leaf), axis=tuple(axes), keepdims=True))

    return jax.tree_util.tree_map_with_path(size, tree)


def _is_stacked(path: tuple[Any, ...]) -> bool:
    """Whether a parameter is that of several layers, which are stacked on its first axis."""
    return any(getattr(entry, "key", None) == "layers" for entry in path)


def _muon(config: Muon, schedule: optax.Schedule) -> optax.GradientTransformation:
    def axes(params: Any) -> Any:  # layers are stacked on the first
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(-2, -1), params)

    def sized(updates: Any, _: Any) -> Any:  # to a root mean square of 0.2, about that of Adam's
        return jax.tree.map(lambda update: 0.2 * max(update.shape[-2:]) ** 0.5 * update, updates)

    orthogonal = optax.chain(
        contrib.scale_by_muon(beta=config.momentum, weight_dimension_numbers=axes), optax.stateless(sized)
    )
    others = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    return optax.chain(
        optax.partition({"orthogonal": orthogonal, "others": others}, _kinds),
        optax.add_decayed_weights(config.weight_decay, mask=_decayed),
        optax.scale_by_learning_rate(schedule),
    )


def _kinds(params: Any) -> Any:
    """Which parameters of a model Muon makes orthogonal updates of."""

    def kind(path: tuple[Any, ...], _: Any) -> str:
        kernel = any(getattr(entry, "key", None) == "kernel" for entry in path)
        return "orthogonal" if kernel and _is_stacked(path) else "others"

    return jax.tree_util.tree_map_with_path(kind, params)


def _schedule_free(
    config: ScheduleFree, schedule: optax.Schedule, scale: Callable[[Any], Any]
) -> optax.GradientTransformation:
    newest = optax.chain(
        optax.scale_by_rms(config.beta2, config.epsilon, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(config.weight_decay, mask=_decayed),
        optax.scale_by_learning_rate(schedule),
    )
    # It counts updates from 1.
    return contrib.schedule_free(_then(scale, newest), lambda count: schedule(count - 1), b1=config.beta1)


def _then(scale: Callable[[Any], Any], optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradients, state, params)
        return scale(updates), state

    return optax.GradientTransformation(optimizer.init, update)


def keeps_average(experiment: Experiment) -> bool:
    """Whether a mean of the parameters over steps is what is evaluated, and the item "average" of a checkpoint."""
    return experiment.training.average_decay is not None or isinstance(experiment.optimizer, ScheduleFree)


def evaluation_point(state: Any, params: Any) -> Any:
    """The mean of the weights that a schedule-free optimizer has gone through.

    Args:
        state: of the optimizer, with clipping before it or not.
        params: the weights that its gradients are taken at.
    """

    def is_it(node: Any) -> bool:
        return isinstance(node, contrib.ScheduleFreeState)

    (own,) = filter(is_it, jax.tree.leaves(state, is_leaf=is_it))
    return contrib.schedule_free_eval_params(own, params)


def _decayed(params: Any) -> Any:
    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        return any(getattr(key, "key", None) in DECAYED for key in path)

    return jax.tree_util.tree_map_with_path(is_matrix, params)
