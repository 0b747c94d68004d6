"""The optimizer (5.3): learning-rate schedules, and optax chains made of an experiment's settings."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer_jax.config import Adam, AdamW, OptimizerConfig, PaperSchedule, Schedule, ScheduleConfig
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
    config: OptimizerConfig, schedule: optax.Schedule, clip_norm: float | None = None
) -> optax.GradientTransformation:
    """Adam or AdamW at the schedule's rate, behind clipping by global norm where `clip_norm` is given."""
    moments = {"b1": config.beta1, "b2": config.beta2, "eps": config.epsilon}
    match config:
        case Adam():
            update = optax.adam(schedule, **moments)
        case AdamW():
            update = optax.adamw(schedule, **moments, weight_decay=config.weight_decay, mask=_decayed)
    return update if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), update)


def _decayed(params: Any) -> Any:
    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        return any(getattr(key, "key", None) in DECAYED for key in path)

    return jax.tree_util.tree_map_with_path(is_matrix, params)
