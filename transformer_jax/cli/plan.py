"""Compiles the training step of an experiment for devices that need not be there, and prints what it takes.

    transformer-jax plan FILE --mesh.data 16 --mesh.fsdp 16 [--FIELD VALUE ...]
    transformer-jax plan FILE --topology v5e:16x16 --mesh.fsdp 16 [--FIELD VALUE ...]

Or compiles nothing, and estimates from the operations of a step how long the run takes.

    transformer-jax plan FILE --on h100:8 [--price 2.5] [--FIELD VALUE ...]

Every field of the experiment is a flag, such as --batch.rows 256;
transformer-jax plan FILE --help lists them with the values of the file.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

from transformer_jax.cli.arguments import over_file
from transformer_jax.config import Experiment
from transformer_jax.errors import FAILED_CHECK, InputError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from transformer_jax.training.planning import Estimate, Plan

_MIB, _GIB = 2**20, 2**30


def main(arguments: Sequence[str]) -> int:
    """Plans; returns the exit code."""
    return over_file("plan FILE [--topology TPU]", __doc__, _plan_of, arguments)


def _plan_of(default: Experiment) -> Callable[..., int]:
    def plan(
        experiment: Annotated[Experiment, tyro.conf.arg(name="")] = default,
        topology: str | None = None,
        memory: float | None = None,
        fit_batch: bool = False,
        on: str | None = None,
        share: float | None = None,
        price: float | None = None,
    ) -> int:
        """Parameters, memory of a device, transfers between devices and operations of one training step.

        With --on: hours of the run, by its operations, and what they cost.

        Args:
            experiment: the experiment of the file, each of its fields a flag.
            topology: compiles with the TPU compiler for these chips, such as v5e:2x4; None simulates CPU devices.
            memory: GiB that a device has; None is what the topology has.
            fit_batch: finds the most rows of a batch that fit in the memory.
            on: devices and how many, such as h100:8, a100:8 or v5e:8; compiles nothing.
            share: of what these devices can do at most, 0 to 1; None is what this project aims at.
            price: of one of them for an hour, in any currency.
        """
        if on is not None:
            if topology is not None or memory is not None or fit_batch:
                raise InputError(f"--on {on}: compiles nothing; leave out --topology, --memory and --fit-batch")
            return _estimate(experiment, on, share, price)
        if share is not None or price is not None:
            raise InputError("--share and --price: on which devices? --on h100:8 says it")
        return _plan(experiment, topology, memory, fit_batch)

    return plan


def _estimate(experiment: Experiment, on: str, share: float | None, price: float | None) -> int:
    """Prints how long a run takes; returns the exit code."""
    name, _, count = on.partition(":")
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise InputError(f"--on {on}: a device and how many of them, such as h100:8")
    if share is not None and not 0 < share <= 1:
        raise InputError(f"--share {share}: above 0 and at most 1")
    if price is not None and price <= 0:
        raise InputError(f"--price {price}: above 0")
    from transformer_jax.training import initial, planning

    experiment = initial.resolved(experiment)
    made = planning.estimate(experiment, name, int(count), share)
    print("\n".join(_estimate_lines(made, experiment, assumed=share is None, price=price)))
    return 0


def _estimate_lines(made: "Estimate", experiment: Experiment, *, assumed: bool, price: float | None) -> Iterator[str]:
    batch, dtype = experiment.batch, experiment.model.dtype
    note = "" if dtype == "bfloat16" else f", in which this model does not compute: --model.dtype is {dtype}"
    lengths = batch.source_length, batch.target_length
    source, target = (batch.rows * length for length in lengths)
    of_device = " + ".join(f"{batch.rows * length / made.count:,.0f}" for length in lengths)
    yield f"{made.count} devices: {made.kind}, each of {made.peak / 1e12:,.0f} TFLOP/s at most in bfloat16{note}"
    yield ""
    yield f"steps            {made.steps:,}"
    yield f"tokens of a step {source:,} + {target:,} with padding, {of_device} a device"
    yield f"FLOPs of a step  {made.operations:,}: those of its matrix products"
    aim = ": assumed, an aim of this project that was not measured" if assumed else ""
    yield f"share of peak    {made.share:.0%}{aim}"
    yield f"time             {made.seconds:.4f} s a step, {made.hours:,.2f} hours; without evaluations and saves"
    device_hours = made.count * made.hours
    cost = "--price tells what they cost" if price is None else f"{device_hours * price:,.2f} at {price} each"
    yield f"device-hours     {device_hours:,.2f}; {cost}"


def _plan(experiment: Experiment, topology: str | None, memory: float | None, fit_batch: bool) -> int:
    """Prints a plan; returns the exit code."""
    if memory is not None and memory <= 0:
        raise InputError(f"--memory {memory}: GiB above 0")
    if fit_batch and memory is None and topology is None:
        raise InputError("--fit-batch: for how much memory? --memory GIB says what a device has")
    simulated = None if topology is not None else _number_of_devices(experiment)
    from transformer_jax import sharding, topologies
    from transformer_jax.training import initial, planning

    experiment = initial.resolved(experiment)
    devices = topologies.simulated(simulated) if simulated is not None else topologies.tpus(str(topology))
    mesh = sharding.make_mesh(experiment.mesh, devices)
    budget = topologies.memory(topology or "") if memory is None else int(memory * _GIB)
    if not fit_batch:
        made = planning.plan(experiment, mesh, budget)
    elif budget is None:
        raise InputError(f"--fit-batch: the memory of {topology} is not known; --memory GIB says it")
    else:
        made = planning.largest_batch(experiment, mesh, budget, tell=_tell)
    print("\n".join(_lines(made, mesh)))
    return 0 if made.fits else FAILED_CHECK


def _number_of_devices(experiment: Experiment) -> int:
    sizes = {"data": experiment.mesh.data, "fsdp": experiment.mesh.fsdp, "tensor": experiment.mesh.tensor}
    for axis, size in sizes.items():
        if size < 0:
            raise InputError(
                f"--mesh.{axis} {size}: of devices that are simulated none remain; give a number, or a --topology"
            )
    return math.prod(sizes.values())


def _tell(made: "Plan") -> None:
    total, rows = made.memory.total, made.experiment.batch.rows
    print(
        f"{rows} rows: {'more' if total is None else _gib(total)}, {'fits' if made.fits else 'does not fit'}",
        flush=True,
    )


def _lines(made: "Plan", mesh: "Mesh") -> Iterator[str]:
    device, batch = mesh.devices.flat[0], made.experiment.batch
    simulated = device.platform == "cpu"
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    yield f"{mesh.size} devices: {'simulated' if simulated else device.device_kind}; mesh {axes}"
    yield ""
    yield f"parameters       {made.parameters:,}"
    yield f"rows of a batch  {batch.rows:,} of {batch.source_length} + {batch.target_length} tokens"
    yield f"FLOPs of a step  {made.flops:,}, {made.flops // mesh.size:,} a device: those of its matrix products"
    yield ""
    estimate = "; an estimate: the compiler of another device lays it out its own way" if simulated else ""
    yield f"memory of a device, MiB{estimate}"
    for kind in ("parameters", "optimizer", "progress", "batch", "activations", "program", "total"):
        size = getattr(made.memory, kind)
        yield f"  {kind:12} {'?' if size is None else f'{size / _MIB:,.1f}':>12}"
    if made.collectives is not None:
        yield ""
        yield "transfers of a step      runs   MiB that reach a device   largest result"
        yield from _transfers(made)
    yield ""
    yield _verdict(made)


def _transfers(made: "Plan") -> Iterator[str]:
    """A line for each kind of collective, and the largest array that one of them leaves on a device."""
    from transformer_jax.programs import moved_by_kind

    found = made.collectives or ()
    for kind, (runs, moved) in sorted(moved_by_kind(found).items(), key=lambda item: -item[1][1]):
        arrays = [array for one in found if one.kind == kind for array in one.results]
        element, shape = max(arrays, key=lambda array: math.prod(array[1]))
        yield f"  {kind:20} {runs:>6,} {moved / _MIB:>27,.1f}   {element}{list(shape)}"


def _verdict(made: "Plan") -> str:
    total, budget = made.memory.total, made.budget
    if made.refusal is not None or total is None:
        return f"does not fit: {made.refusal}"
    if budget is None:
        return f"takes {_gib(total)} a device; --memory GIB asks whether it fits"
    return f"{'fits' if made.fits else 'does not fit'}: takes {_gib(total)} of {_gib(budget)} a device"


def _gib(size: int) -> str:
    return f"{size / _GIB:,.2f} GiB"
