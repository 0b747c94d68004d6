"""One optimizer step and one evaluation step: pure functions of state and batch, jitted in one place."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, no_type_check

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from transformer_jax import sharding
from transformer_jax.config import Experiment, StabilityConfig, TrainingConfig
from transformer_jax.data.batch import Batch
from transformer_jax.initialisation import initialise
from transformer_jax.models import Parameters, Transformer
from transformer_jax.training.losses import EvaluatedSums, LossSums
from transformer_jax.training.objectives import batch_evaluation, batch_loss
from transformer_jax.training.optimizer import evaluation_point, keeps_average, learning_rate, make_optimizer
from transformer_jax.training.trained import Rates, joined, moving, rates_of, scaled, trained

SETTLED = 20  # good steps before the running mean of the loss can call another one a spike
TOO_MANY_SKIPPED, SPIKE = 1, 2  # why a run has to go back


@no_type_check  # of the fields: as a tree it holds shapes and shardings, too
@flax.struct.dataclass
class Progress:
    """What has been summed since the last line of metrics; part of the state, so that a resume continues the sums."""

    sums: LossSums
    gradient_norm: Float[Array, ""]  # summed over steps
    steps: Int[Array, ""]  # that are in the sums
    skipped: Int[Array, ""]  # that are not, since they were bad

    @staticmethod
    def zero() -> "Progress":
        """Nothing summed yet."""
        zero = jnp.zeros((), jnp.int32)
        return Progress(LossSums.zero(), jnp.zeros((), jnp.float32), zero, zero)


@no_type_check  # likewise
@flax.struct.dataclass
class Health:
    """What bad steps are told by.

    Once `tripped`, no step changes parameters, optimizer or average any more, until the run has gone back: so it does
    not matter how many steps later whoever reads the reports finds out.
    """

    mean_loss: Float[Array, ""]  # running mean over good steps, nats a token
    good: Int[Array, ""]  # steps in that mean
    skipped: Int[Array, ""]  # bad steps, up to now
    in_a_row: Int[Array, ""]  # of them, since the last good one
    tripped: Int[Array, ""]  # 0, TOO_MANY_SKIPPED or SPIKE

    @staticmethod
    def fresh() -> "Health":
        """No step taken yet."""
        zero = jnp.zeros((), jnp.int32)
        return Health(jnp.zeros((), jnp.float32), zero, zero, zero, zero)

    def after(self, loss: Float[Array, ""], finite: Bool[Array, ""], config: StabilityConfig) -> "Health":
        """The health after a step of this mean loss, whose loss and gradients were finite or not."""
        spike = jnp.zeros((), bool)
        if config.spike is not None:
            spike = finite & (self.good >= SETTLED) & (loss > self.mean_loss + config.spike)
        in_a_row = jnp.where(finite, 0, self.in_a_row + 1)
        tripped = jnp.where(in_a_row >= config.max_skipped, TOO_MANY_SKIPPED, jnp.where(spike, SPIKE, 0))
        tripped = jnp.where(self.tripped > 0, self.tripped, tripped)
        good = finite & (tripped == 0)
        share = 1 - jnp.minimum(0.99, (1.0 + self.good) / (10.0 + self.good))
        return Health(
            mean_loss=jnp.where(good, self.mean_loss + share * (loss - self.mean_loss), self.mean_loss),
            good=self.good + good,
            skipped=self.skipped + ~good,
            in_a_row=in_a_row,
            tripped=tripped,
        )


class StepReport(NamedTuple):
    """What a step tells, as one float32 array on the devices; the host reads it while the next step runs."""

    loss: float | Array  # mean over the tokens of the batch, nats
    gradient_norm: float | Array
    good: float | Array  # 1 where the update was made, else 0
    tripped: float | Array  # see Health
    asked: float | Array  # the highest number that any device was given: a signal that asks the run to stop


@no_type_check  # likewise
@flax.struct.dataclass
class TrainState:
    """All that a step changes. The number of steps taken is also what dropout and the schedule depend on."""

    step: Int[Array, ""]
    params: Parameters
    optimizer: Any
    average: Parameters | None  # a mean of params over steps, where the experiment keeps one
    progress: Progress
    health: Health

    @property
    def evaluated(self) -> Parameters:
        """The parameters that are evaluated and translated with."""
        return self.params if self.average is None else self.average


TrainStep: TypeAlias = Callable[[TrainState, Batch, Array], tuple[TrainState, Array]]
EvalStep: TypeAlias = Callable[[Parameters, Batch], EvaluatedSums]


@functools.cache
def _least_memory(device: jax.Device) -> dict[str, str] | None:
    """Options by which a CPU's compiler orders a step so that little is held at once; None for other devices.

    It takes half the memory of the default order, which is for many small operations side by side, in the same time.
    """
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if device.platform != "cpu":
        return None
    try:
        with jax.default_device(device):
            jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # a version without them
        return None
    return options


def make_eval_step(model: Transformer, mesh: Mesh) -> EvalStep:
    """What sums up the losses of a batch, of parameters and batches that lie on a mesh; compiled for each shape."""
    evaluated = sharding.on_mesh(mesh, functools.partial(batch_evaluation, model))
    return jax.jit(evaluated, out_shardings=sharding.replicated(mesh))


def gradients(
    model: Transformer,
    params: Parameters,
    batch: Batch,
    key: Key[Array, ""],
    config: TrainingConfig,
    rates: Rates | None = None,
) -> tuple[Parameters, LossSums]:
    """The gradient of the mean loss over all target tokens of the batch, and the sums.

    With accumulation the batch is cut into parts that are computed one after the other. Each part's sum is divided by
    the token count of the whole batch, so the result is that of the whole batch at once, whatever the parts hold.
    Of parameters that are frozen, by `rates`, there is no gradient: None.
    """
    everything, params = params, trained(rates, params)
    tokens = jnp.maximum(batch.target_tokens(), 1.0)

    def part(batch: Batch, key: Key[Array, ""]) -> tuple[Parameters, LossSums]:
        def mean_loss(params: Parameters) -> tuple[Float[Array, ""], LossSums]:
            whole = params if rates is None else joined(params, everything)
            sums = batch_loss(model, whole, batch, label_smoothing=config.label_smoothing, dropout_key=key)
            return sums.loss / tokens, sums

        return jax.grad(mean_loss, has_aux=True)(params)

    if config.accumulation == 1:
        return part(batch, key)

    def cut(x: Array) -> Array:  # every part takes rows of every device: [A*B ...] -> [A B ...]
        return x.reshape(-1, config.accumulation, *x.shape[1:]).swapaxes(0, 1)

    leaves, structure = jax.tree.flatten(batch)

    def add(total: Parameters, item: tuple[list[Array], Array]) -> tuple[Parameters, LossSums]:
        rows, index = item
        grads, sums = part(jax.tree.unflatten(structure, rows), jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, grads), sums

    parts = ([cut(leaf) for leaf in leaves], jnp.arange(config.accumulation))
    total, sums = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)
    return total, jax.tree.map(lambda part: part.sum(0), sums)


def train_step(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    experiment: Experiment,
    rates: Rates | None,
    state: TrainState,
    batch: Batch,
    asked: Int[Array, " devices"],
) -> tuple[TrainState, Float[Array, "5"]]:
    """The state after one update, and a StepReport. Pure: dropout draws from the seed and the number of the step.

    A loss or gradient that is not finite changes neither parameters nor optimizer nor average: they stay as they were.
    """
    config = experiment.training
    key = jax.random.fold_in(jax.random.key(experiment.seed), state.step)
    grads, sums = gradients(model, state.params, batch, key, config, rates)
    grads, old = moving(rates, grads), trained(rates, state.params)
    loss, norm = sums.loss / jnp.maximum(sums.tokens, 1.0), optax.tree.norm(grads)
    health = state.health.after(loss, jnp.isfinite(loss) & jnp.isfinite(norm), experiment.stability)
    good = health.good > state.health.good

    def where_good(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda new, old: jnp.where(good, new, old), new, old)

    updates, optimizer_state = optimizer.update(grads, state.optimizer, old)
    params = where_good(optax.apply_updates(old, updates), old)
    params = params if rates is None else joined(params, state.params)
    average = where_good(_average(experiment, rates, state, params, optimizer_state), state.average)
    seen = Progress(sums=sums, gradient_norm=norm, steps=jnp.int32(1), skipped=jnp.int32(0))
    progress = jax.tree.map(jnp.add, state.progress, where_good(seen, replace(Progress.zero(), skipped=jnp.int32(1))))
    told = StepReport(loss, norm, good, health.tripped, asked.max())
    state = TrainState(
        step=state.step + 1,
        params=params,
        optimizer=where_good(optimizer_state, state.optimizer),
        average=average,
        progress=progress,
        health=health,
    )
    return state, jnp.stack([jnp.asarray(value, jnp.float32) for value in told])


def _average(
    experiment: Experiment, rates: Rates | None, state: TrainState, params: Parameters, optimizer_state: Any
) -> Parameters | None:
    """The mean behind a step to these parameters, where the experiment keeps one."""
    decay = experiment.training.average_decay
    if decay is not None:
        return moving_average(state.average, params, state.step, decay)
    if not keeps_average(experiment):
        return None
    mean: Parameters = evaluation_point(optimizer_state, trained(rates, params))
    return mean if rates is None else joined(mean, params)


def moving_average(average: Parameters | None, params: Parameters, step: Int[Array, ""], decay: float) -> Parameters:
    """The average, moved towards params by 1 - decay; early on the decay is at most (1 + step) / (10 + step)."""
    share = 1 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + share * (new - old), average, params)


def _new_state(
    experiment: Experiment, optimizer: optax.GradientTransformation, rates: Rates | None, params: Parameters
) -> TrainState:
    average = jax.tree.map(jnp.copy, params) if keeps_average(experiment) else None
    zero, moments = jnp.zeros((), jnp.int32), optimizer.init(trained(rates, params))
    return TrainState(zero, params, moments, average, Progress.zero(), Health.fresh())


class Trainer:
    """The compiled functions of one experiment on one mesh, with shardings and donation settled here.

    Args:
        experiment: the experiment.
        mesh: the devices.
        total_steps: length of the run.
        initial: the parameters that it starts from; None is fresh ones, by its seed.
    """

    def __init__(
        self, experiment: Experiment, mesh: Mesh, total_steps: int, initial: Callable[[], Parameters] | None = None
    ) -> None:
        self.experiment, self.mesh, self.total_steps, self._initial = experiment, mesh, total_steps, initial
        self.rates = rates_of(experiment.model, experiment.training)
        self.model = Transformer(experiment.model, remat=experiment.training.remat)
        self.schedule = learning_rate(experiment.schedule, experiment.model.width, total_steps)
        self.optimizer = make_optimizer(
            experiment.optimizer,
            self.schedule,
            experiment.training.clip_norm,
            functools.partial(scaled, self.rates),
        )
        new_boxed_state = jax.jit(self._new_boxed_state)  # traced once, for the shapes here and where it is made
        boxed = jax.eval_shape(new_boxed_state)
        self.state_sharding: TrainState = sharding.state_shardings(boxed, mesh)
        self.abstract_state: TrainState = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            nn.meta.unbox(boxed),
            self.state_sharding,
        )
        rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        self.step: TrainStep = sharding.on_mesh(  # as a part of other programs
            mesh, functools.partial(train_step, self.model, self.optimizer, experiment, self.rates)
        )
        self.train_step: TrainStep = jax.jit(
            self.step,
            in_shardings=(self.state_sharding, rows, sharding.one_a_device(mesh)),
            out_shardings=(self.state_sharding, everywhere),
            donate_argnums=0,
            compiler_options=_least_memory(mesh.devices.flat[0]),
        )
        self.eval_step = make_eval_step(self.model, mesh)
        self._asked: dict[int, Array] = {}
        self._new_state: Callable[[], TrainState] = jax.jit(
            lambda: nn.meta.unbox(new_boxed_state()), out_shardings=self.state_sharding
        )
        self._state_of: Callable[[Parameters], TrainState] = jax.jit(
            functools.partial(_new_state, experiment, self.optimizer, self.rates),
            in_shardings=(self.state_sharding.params,),
            out_shardings=self.state_sharding,
            donate_argnums=0,
        )
        self._reset = jax.jit(
            lambda: (Progress.zero(), jnp.zeros((), jnp.int32)),
            out_shardings=(self.state_sharding.progress, everywhere),
        )

    def _new_boxed_state(self) -> TrainState:
        params = initialise(self.experiment.model, jax.random.key(self.experiment.seed))
        return _new_state(self.experiment, self.optimizer, self.rates, params)

    def new_state(self) -> TrainState:
        """The state before the first step, born sharded."""
        return self._new_state() if self._initial is None else self._state_of(self._initial())

    def asked(self, signal: int) -> Int[Array, " devices"]:
        """What this process tells a step: the number of the signal that asks it to stop, or 0."""
        if signal not in self._asked:
            place = sharding.one_a_device(self.mesh)
            self._asked[signal] = jax.make_array_from_callback(
                (self.mesh.size,), place, lambda part: np.full(1, signal, np.int32)
            )
        return self._asked[signal]

    def step_number(self, step: int) -> Int[Array, ""]:
        """The number of steps taken, as a state holds it."""
        place = sharding.replicated(self.mesh)
        return jax.make_array_from_callback((), place, lambda part: np.asarray(step, np.int32))

    def reset_progress(self, state: TrainState) -> TrainState:
        """The state with its sums since the last line of metrics set to zero."""
        return replace(state, progress=self._reset()[0])

    def passed_over(self, state: TrainState) -> TrainState:
        """The state of a checkpoint, from which a run goes on behind bad data."""
        return replace(state, health=replace(state.health, in_a_row=self._reset()[1]))
