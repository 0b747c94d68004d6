"""How a training step grows, and attention: `python -m benchmarks.scaling [--axes rows length ...] [--rounds 3]`.

A small model in float32 without dropout, of which one size at a time is doubled. CPU seconds of a step on one core, and
the temporary memory of a device by the compiler; beside the slope of each doubling (1 is linear, 2 quadratic) the one
that theory has: for time that of the operations counted in the step, for memory that of activations, which grow with
rows, length and layers, and with the width beyond what attention weights take. Devices are simulated on the same core
and each brings its own rows: time grows with their number, the memory of a device does not. Of attention alone, causal,
8 heads of 64, it is the gradient, with all weights at once, whose memory is quadratic, and in blocks of queries.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.base import attention_at_once, batch_of, experiment_of, sentences
from transformer_jax import ModelConfig, programs, sharding, topologies
from transformer_jax.attention import blockwise_attention
from transformer_jax.config import MeshConfig
from transformer_jax.masks import SegmentMask
from transformer_jax.training import planning
from transformer_jax.training.step import Trainer

MODULE = "benchmarks.scaling"
MODEL = ModelConfig(
    encoder_layers=2, decoder_layers=2, width=128, num_heads=2, ffn_width=512, vocab_size=8_000, dropout=0.0
)
SIZES = {
    "rows": (4, 8, 16, 32, 64),
    "length": (256, 512, 1024, 2048, 4096),
    "width": (64, 128, 256, 512),
    "layers": (2, 4, 8),
    "devices": (1, 2, 4, 8),
    "attention": (512, 1024, 2048, 4096),
    "attention-at-once": (512, 1024, 2048, 4096),
}
# Slopes of activations.
MEMORY = {"rows": 1, "length": 1, "width": 1, "layers": 1, "devices": 0, "attention": 1, "attention-at-once": 2}
Program = tuple[Callable[[], object], jax.stages.Traced]  # what runs, and what was read of it


def setting(axis: str, size: int) -> tuple[ModelConfig, int, int, int]:
    """Model, rows, length and devices where one of them has this size."""
    model, rows, length, devices = MODEL, 16, 64, 1
    if axis == "rows":
        rows = size
    elif axis == "length":
        rows, length = 1, size
    elif axis == "width":
        model = replace(model, width=size, ffn_width=4 * size, num_heads=size // 64 or 1)
    elif axis == "layers":
        model = replace(model, encoder_layers=size, decoder_layers=size)
    else:
        rows, devices = 4 * size, size
    return model, rows, length, devices


def step_of(axis: str, size: int) -> Program:
    """A training step."""
    model, rows, length, devices = setting(axis, size)
    mesh = sharding.make_mesh(MeshConfig(data=devices), topologies.simulated(devices))
    trainer = Trainer(experiment_of(model, rows, length), mesh, 1_000)
    state, batch = trainer.new_state(), sharding.placed(mesh, batch_of(sentences(rows, length)))
    asked = trainer.asked(0)

    def step() -> None:
        nonlocal state
        state, told = trainer.train_step(state, batch, asked)
        jax.block_until_ready((state, told))

    return step, planning.trace(trainer)


def attention_of(axis: str, length: int) -> Program:
    """The gradient of attention."""
    arrays = [jax.random.normal(jax.random.key(seed), (1, length, 8, 64)) for seed in range(3)]
    segments = jnp.ones((1, length), jnp.int32)
    attend = blockwise_attention if axis == "attention" else attention_at_once

    def squares(arrays: list[jax.Array]) -> jax.Array:
        return (attend(*arrays, SegmentMask(segments, segments, causal=True)) ** 2).sum()

    gradient = jax.jit(jax.grad(squares))
    return lambda: jax.block_until_ready(gradient(arrays)), gradient.trace(arrays)


def measure(axis: str, size: int, rounds: int) -> dict[str, float]:
    """In a process of its own: seconds, operations and memory."""
    run, traced = (attention_of if axis.startswith("attention") else step_of)(axis, size)
    memory: Any = traced.lower().compile().memory_analysis()
    return {
        "seconds": timing.in_turn({axis: run}, rounds)[axis]["cpu_min"],
        "flops": programs.flops_of(traced.jaxpr),
        "temporary": memory.temp_size_in_bytes,
    }


def rows_of(axis: str, rounds: int) -> Iterator[dict[str, Any]]:
    """The table of one axis."""
    before: dict[str, float] | None = None
    for size in SIZES[axis]:
        arguments = ["--child", "--axes", axis, "--size", size, "--rounds", rounds]
        now: dict[str, float] = timing.child(MODULE, arguments, cores=1)
        slopes = {name: math.log2(now[name] / before[name]) for name in now} if before else {}
        yield {
            "axis": axis,
            "size": size,
            "CPU s": now["seconds"],
            "slope": slopes.get("seconds"),
            "of operations": slopes.get("flops"),
            "GFLOP / s": now["flops"] / now["seconds"] / 1e9,
            "temporary MiB": now["temporary"] / 2**20,
            "its slope": slopes.get("temporary"),
            "of activations": MEMORY[axis] if before else None,
        }
        before = now


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.axes[0], options.size, options.rounds)))
        return
    rows = [row for axis in options.axes for row in rows_of(axis, options.rounds)]
    timing.report("A training step, attention, and their sizes", rows)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
