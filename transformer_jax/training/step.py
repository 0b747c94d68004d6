"""One optimizer step and one evaluation step: pure functions of state and batch, jitted in one place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias, no_type_check

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from transformer_jax import sharding
from transformer_jax.config import Experiment, TrainingConfig
from transformer_jax.data.batch import Batch
from transformer_jax.models import Parameters, Transformer, initialise
from transformer_jax.training.losses import LossSums, cross_entropy
from transformer_jax.training.optimizer import learning_rate, make_optimizer


@no_type_check  # of the fields: as a tree it holds shapes and shardings, too
@flax.struct.dataclass
class Progress:
    """What has been summed since the last line of metrics; part of the state, so that a resume continues the sums."""

    sums: LossSums
    gradient_norm: Float[Array, ""]  # summed over steps
    steps: Int[Array, ""]

    @staticmethod
    def zero() -> "Progress":
        """Nothing summed yet."""
        return Progress(LossSums.zero(), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))


@no_type_check  # likewise
@flax.struct.dataclass
class TrainState:
    """All that a step changes. The number of steps taken is also what dropout and the schedule depend on."""

    step: Int[Array, ""]
    params: Parameters
    optimizer: Any
    average: Parameters | None  # moving average of params, where the experiment keeps one
    progress: Progress

    @property
    def evaluated(self) -> Parameters:
        """The parameters that are evaluated and translated with."""
        return self.params if self.average is None else self.average


TrainStep: TypeAlias = Callable[[TrainState, Batch], TrainState]
EvalStep: TypeAlias = Callable[[Parameters, Batch], LossSums]


def batch_loss(
    model: Transformer,
    params: Parameters,
    batch: Batch,
    *,
    label_smoothing: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> LossSums:
    """Teacher forcing: the sums of the loss over a batch; with dropout where a key is given."""
    source, target = batch.source, batch.target
    if source is None or target is None or target.targets is None or target.weights is None:
        raise ValueError("a translation batch has both sides, and targets and weights on the target side")
    logits, _ = model.apply(
        {"params": params},
        source.tokens,
        target.tokens,
        source_segments=source.segment_ids,
        target_segments=target.segment_ids,
        source_positions=source.positions,
        target_positions=target.positions,
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
    return cross_entropy(logits, jnp.asarray(target.targets), jnp.asarray(target.weights), label_smoothing)


def gradients(
    model: Transformer, params: Parameters, batch: Batch, key: Key[Array, ""], config: TrainingConfig
) -> tuple[Parameters, LossSums]:
    """The gradient of the mean loss over all target tokens of the batch, and the sums.

    With accumulation the batch is cut into parts that are computed one after the other. Each part's sum is divided by
    the token count of the whole batch, so the result is that of the whole batch at once, whatever the parts hold.
    """
    tokens = jnp.maximum(batch.target_tokens(), 1.0)

    def part(batch: Batch, key: Key[Array, ""]) -> tuple[Parameters, LossSums]:
        def mean_loss(params: Parameters) -> tuple[Float[Array, ""], LossSums]:
            sums = batch_loss(model, params, batch, label_smoothing=config.label_smoothing, dropout_key=key)
            return sums.loss / tokens, sums

        return jax.grad(mean_loss, has_aux=True)(params)

    if config.accumulation == 1:
        return part(batch, key)

    def cut(x: Array) -> Array:  # every part takes rows of every device: [A*B ...] -> [A B ...]
        return x.reshape(-1, config.accumulation, *x.shape[1:]).swapaxes(0, 1)

    leaves, structure = jax.tree.flatten(batch)

    def add(total: tuple[Parameters, LossSums], item: tuple[list[Array], Array]) -> tuple[Any, None]:
        rows, index = item
        grads = part(jax.tree.unflatten(structure, rows), jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, grads), None

    parts = ([cut(leaf) for leaf in leaves], jnp.arange(config.accumulation))
    zeros = (jax.tree.map(jnp.zeros_like, params), LossSums.zero())
    total, _ = jax.lax.scan(add, zeros, parts)
    return total


def train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    experiment: Experiment,
    state: TrainState,
    batch: Batch,
) -> TrainState:
    """The state after one update. Pure: dropout draws from the experiment's seed and the number of the step."""
    config = experiment.training
    key = jax.random.fold_in(jax.random.key(experiment.seed), state.step)
    grads, sums = gradients(model, state.params, batch, key, config)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    average = None
    if config.average_decay is not None:
        average = moving_average(state.average, params, state.step, config.average_decay)
    progress = Progress(
        sums=state.progress.sums + sums,
        gradient_norm=state.progress.gradient_norm + optax.tree.norm(grads),
        steps=state.progress.steps + 1,
    )
    return TrainState(state.step + 1, params, optimizer_state, average, progress)


def moving_average(average: Parameters | None, params: Parameters, step: Int[Array, ""], decay: float) -> Parameters:
    """The average, moved towards params by 1 - decay; early on the decay is at most (1 + step) / (10 + step)."""
    share = 1 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + share * (new - old), average, params)


def _new_state(experiment: Experiment, optimizer: optax.GradientTransformation, key: Key[Array, ""]) -> TrainState:
    params = initialise(experiment.model, key)
    average = None if experiment.training.average_decay is None else jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), average, Progress.zero())


class Trainer:
    """The compiled functions of one experiment on one mesh, with shardings and donation settled here."""

    def __init__(self, experiment: Experiment, mesh: Mesh, total_steps: int) -> None:
        self.experiment, self.mesh, self.total_steps = experiment, mesh, total_steps
        self.model = Transformer(experiment.model, remat=experiment.training.remat)
        self.schedule = learning_rate(experiment.schedule, experiment.model.width, total_steps)
        self.optimizer = make_optimizer(experiment.optimizer, self.schedule, experiment.training.clip_norm)
        boxed = jax.eval_shape(self._new_boxed_state)
        self.state_sharding: TrainState = sharding.state_shardings(boxed, mesh)
        self.abstract_state: TrainState = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            nn.meta.unbox(boxed),
            self.state_sharding,
        )
        rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        self.train_step: TrainStep = jax.jit(
            sharding.on_mesh(mesh, lambda state, batch: train_step(self.model, self.optimizer, experiment, state, batch)),
            in_shardings=(self.state_sharding, rows),
            out_shardings=self.state_sharding,
            donate_argnums=0,
        )
        self.eval_step: EvalStep = jax.jit(
            sharding.on_mesh(mesh, lambda params, batch: batch_loss(self.model, params, batch)),
            in_shardings=(self.state_sharding.params, rows),
            out_shardings=everywhere,
        )

    def _new_boxed_state(self) -> TrainState:
        return _new_state(self.experiment, self.optimizer, jax.random.key(self.experiment.seed))

    def new_state(self) -> TrainState:
        """The state before the first step, born sharded."""
        return jax.jit(lambda: nn.meta.unbox(self._new_boxed_state()), out_shardings=self.state_sharding)()

    def reset_progress(self, state: TrainState) -> TrainState:
        """The state with its sums since the last line of metrics set to zero."""
        zero = jax.device_put(Progress.zero(), self.state_sharding.progress)
        return replace(state, progress=zero)
