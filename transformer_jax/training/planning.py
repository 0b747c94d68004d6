"""A training step on machines that are not there: compiled for them, it tells its memory, transfers and operations."""

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from transformer_jax import accelerators, programs, sharding
from transformer_jax.config import Experiment
from transformer_jax.data.batch import Batch, Side
from transformer_jax.errors import InputError
from transformer_jax.programs import Collective
from transformer_jax.training.step import Trainer

_ANY_LENGTH = 10**9  # steps of a run; they change a constant of the schedule, and nothing that is planned


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device. The first four are exact; the others are the compiler's, None where it does not tell.

    Attributes:
        parameters: the weights.
        optimizer: its state, and the moving average of the weights where there is one.
        progress: sums and counts of a training state.
        batch: both sides of one batch.
        activations: what the program makes for itself: activations, gradients, parameters gathered from elsewhere.
        total: all of that, the program itself, and what the device adds to fill its tiles of memory.
    """

    parameters: int
    optimizer: int
    progress: int
    batch: int
    activations: int | None = None
    total: int | None = None

    @property
    def program(self) -> int | None:
        """The program itself, and what fills the tiles."""
        if self.total is None or self.activations is None:
            return None
        return self.total - self.activations - self.batch - self.progress - self.optimizer - self.parameters


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one training step of an experiment takes on a mesh.

    Attributes:
        experiment: what was planned.
        parameters: how many the model has.
        flops: operations of all matrix products of a step, on all devices together, whatever the mesh.
        memory: of one device.
        budget: bytes a device has for it; None where nobody said.
        collectives: None where the compiler gave up for lack of memory.
        refusal: what the compiler said then.
    """

    experiment: Experiment
    parameters: int
    flops: int
    memory: Memory
    budget: int | None
    collectives: tuple[Collective, ...] | None
    refusal: str | None

    @property
    def fits(self) -> bool:
        """Whether the step has the memory it needs, as far as one knows the budget."""
        return self.refusal is None and (self.budget is None or (self.memory.total or 0) <= self.budget)


def plan(experiment: Experiment, mesh: Mesh, budget: int | None = None) -> Plan:
    """Compiles the training step for the devices of a mesh, which need not be there, and reads what it takes.

    Args:
        experiment: of its data nothing is read.
        mesh: simulated devices, those of a topology, or real ones.
        budget: bytes of memory that a device has.

    Raises:
        InputError: where the mesh does not divide the model or the batch.
    """
    sharding.check_mesh(mesh, experiment.model)
    sharding.check_rows(mesh, experiment.batch.rows)
    trainer = Trainer(experiment, mesh, experiment.training.steps or _ANY_LENGTH)
    traced, state, memory = trace(trainer), trainer.abstract_state, _exact_memory(trainer)
    found, refusal = None, None
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        refusal = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in refusal:
            raise
        memory = replace(memory, total=_asked_for(refusal))
    else:
        memory = _compiled_memory(memory, compiled)
        found = tuple(programs.collectives(compiled.as_text() or ""))
    return Plan(
        experiment=experiment,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        flops=programs.flops_of(traced.jaxpr),
        memory=memory,
        budget=budget,
        collectives=found,
        refusal=refusal,
    )


def _exact_memory(trainer: Trainer) -> Memory:
    state, batch = trainer.abstract_state, abstract_batch(trainer.experiment, trainer.mesh)
    kept = (state.params, state.optimizer, state.average)
    return Memory(
        parameters=bytes_on_a_device(state.params),
        optimizer=bytes_on_a_device((state.optimizer, state.average)),
        progress=bytes_on_a_device(state) - bytes_on_a_device(kept),
        batch=bytes_on_a_device((batch.source, batch.target)),
    )


def _compiled_memory(memory: Memory, compiled: jax.stages.Compiled) -> Memory:
    """The memory with what a compiler tells; outputs that take the place of inputs count once."""
    told: Any = compiled.memory_analysis()
    arrays = told.argument_size_in_bytes + told.output_size_in_bytes - told.alias_size_in_bytes
    total = arrays + told.temp_size_in_bytes + told.generated_code_size_in_bytes
    return replace(memory, activations=told.temp_size_in_bytes, total=total)


def _asked_for(refusal: str) -> int | None:
    """The bytes that a TPU compiler says it would need, "(18.88G) exceeds" or "Used 18.88G of"."""
    asked = re.search(r"(?:\(|Used )([\d.]+)([KMGT])\)? (?:exceeds|of)", refusal)
    return int(float(asked.group(1)) * 2 ** (10 * (1 + "KMGT".index(asked.group(2))))) if asked else None


def largest_batch(experiment: Experiment, mesh: Mesh, budget: int, tell: Callable[[Plan], None]) -> Plan:
    """The plan of the most rows whose step fits in the budget, the next more having been compiled and not fitted.

    Rows are tried in multiples of the devices that share a batch, and of the parts it is accumulated in. Memory grows
    about linearly with them, so what was compiled foretells where it ends, and a few more sizes settle it.

    Args:
        experiment: its `batch.rows` are tried first, as far as they are such a multiple.
        mesh: as `plan` takes it.
        budget: bytes of memory that a device has.
        tell: is given each plan as it is made.

    Returns:
        Where not even the fewest rows fit, their plan.
    """
    unit = sharding.batch_shards(mesh) * experiment.training.accumulation
    plans: dict[int, Plan] = {}  # by rows, in units
    totals: dict[int, int] = {}  # bytes, likewise

    def fits(count: int) -> bool:
        batch = replace(experiment.batch, rows=count * unit)
        made = plans[count] = plan(replace(experiment, batch=batch), mesh, budget)
        totals.setdefault(0, made.memory.parameters + made.memory.optimizer)
        if made.memory.total is not None:
            totals[count] = made.memory.total
        tell(made)
        return made.fits

    most, too_many, count = 0, math.inf, max(experiment.batch.rows // unit, 1)
    while most + 1 < too_many:
        if fits(count):
            most = count
        else:
            too_many = count
        limit = 4 * most if too_many == math.inf else int(too_many) - 1
        foretold = _foretold(totals, budget)
        count = max(most + 1, min(limit, (most + limit + 1) // 2 if foretold is None else foretold))
    return plans[max(most, 1)]


def _foretold(totals: dict[int, int], budget: int) -> int | None:
    """The count at which the line through the two totals closest to the budget meets it; None where it does not."""
    if len(totals) < 2:
        return None
    (count, total), (other, other_total) = sorted(totals.items(), key=lambda item: abs(item[1] - budget))[:2]
    slope = (other_total - total) / (other - count)
    return None if slope <= 0 else math.floor(count + (budget - total) / slope)


def trace(trainer: Trainer) -> jax.stages.Traced:
    """The training step as a program made of shapes and shardings alone: nothing is computed, nothing compiled."""
    asked = jax.ShapeDtypeStruct((trainer.mesh.size,), jnp.int32)
    step = cast(jax.stages.Wrapped, trainer.train_step)
    return step.trace(trainer.abstract_state, abstract_batch(trainer.experiment, trainer.mesh), asked)


def step_operations(experiment: Experiment) -> int:
    """Operations of the matrix products of a step by formula, whatever is computed again for less memory.

    Two for each multiplication with its addition, and a gradient takes twice what its value takes.
    """
    model, batch = experiment.model, experiment.batch
    source, target = batch.rows * batch.source_length, batch.rows * batch.target_length
    heads, kept = model.num_heads * model.channels, model.key_value_heads * model.channels
    asked, told = 2 * model.width * heads, 2 * model.width * kept  # queries and outputs, keys and values
    feed_forward = (3 if model.gated else 2) * model.width * model.ffn_width
    encoder = source * (asked + told + feed_forward + 2 * batch.source_length * heads)
    own = target * (asked + told + feed_forward + 2 * batch.target_length * heads)
    cross = target * asked + source * told + 2 * target * batch.source_length * heads
    decoder = own + (cross if model.encoder_layers else 0)
    head = model.width if model.classes or model.output_head else 0
    logits = target * model.width * (head + (model.classes or model.vocab_size))
    return 3 * 2 * (model.encoder_layers * encoder + model.decoder_layers * decoder + logits)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How long the steps of a run take on devices that do a given share of what they can do at most.

    Attributes:
        kind: the devices, as jax calls them.
        count: how many they are.
        peak: operations a second of one of them in bfloat16, by its maker.
        share: of the peak, which somebody assumed.
        steps: of the run.
        operations: of one step, by `step_operations`.
    """

    kind: str
    count: int
    peak: float
    share: float
    steps: int
    operations: int

    @property
    def seconds(self) -> float:
        """Of one step."""
        return self.operations / (self.count * self.peak * self.share)

    @property
    def hours(self) -> float:
        """Of all steps, without evaluations, saves and compilations."""
        return self.steps * self.seconds / 3600


def estimate(experiment: Experiment, name: str, count: int, share: float | None = None) -> Estimate:
    """How long an experiment trains on so many devices.

    Args:
        experiment: of its data nothing is read.
        name: of the devices, in short.
        count: how many they are.
        share: of their peak; None is that of `assumed_share`.

    Raises:
        InputError: on a device that is not known, and on a run whose number of steps depends on its data.
    """
    kind, steps = accelerators.SHORT_NAMES.get(name.lower()), experiment.training.steps
    peak = None if kind is None else accelerators.peak_operations(kind)
    if kind is None or peak is None:
        raise InputError(f"--on {name}:{count}: no such device; known are {', '.join(accelerators.SHORT_NAMES)}")
    if steps is None:
        raise InputError(
            f"--on: training.epochs={experiment.training.epochs} is as many steps as the data gives; "
            "--training.epochs None --training.steps N says how many"
        )
    share = assumed_share(experiment) if share is None else share
    return Estimate(kind, count, peak, share, steps, step_operations(experiment))


def assumed_share(experiment: Experiment) -> float:
    """The share of a device's peak that training should reach: aims of this project, which nobody has measured yet."""
    return 0.45 if experiment.model.width >= 1024 else 0.30


def abstract_batch(experiment: Experiment, mesh: Mesh) -> Batch:
    """A batch as the pipeline makes them, but for the number of examples of a row, which no step looks at.

    The source is there where the model has an encoder.
    """
    config, place = experiment.batch, sharding.batch_sharding(mesh)

    def array(length: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct((config.rows, length), dtype, sharding=place)

    def read(length: int) -> dict[str, Any]:
        return {name: array(length) for name in ("tokens", "segment_ids", "positions")}

    length = config.target_length
    target = Side(**read(length), targets=array(length), weights=array(length, jnp.float32))
    source = Side(**read(config.source_length)) if experiment.model.encoder_layers else None
    return Batch(source, target, example_ids=array(1))


def bytes_on_a_device(tree: Any) -> int:
    """Bytes of the part of an abstract tree that lies on one device, by its shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
