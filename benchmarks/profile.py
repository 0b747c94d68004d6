"""Where a training step's time goes: `python -m benchmarks.profile [--rows 32] [--length 32] [--trace DIR]`.

The paper's base size over 8,000 pieces, on one core of a CPU or on one accelerator. A trace of two steps, its
instructions summed by the part of the model that made them, beside an estimate of the least time that each could take:
the operations of its products at the speed of a large product, or its bytes, each array read and written by itself, at
the speed of a large copy, both measured in the same process. A fused instruction counts for the part that its last
operation stands in, and what is fused, or stays in a cache, may take less than this floor.
"""

import argparse
import collections
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.base import BASE, batch_of, experiment_of, sentences
from transformer_jax import sharding
from transformer_jax.training.step import Trainer

STEPS = 2  # traced
PARTS = (  # (part, what the name of an operation holds); the first that fits
    ("feed-forward products", r"feed_forward/(inner|outer|gate)/.*(dot_general|transpose)$"),
    ("projections", r"attention.*/(query|key|value|out)/.*(dot_general|transpose)$"),
    ("vocabulary products", r"logit_sums.*dot_general$"),
    ("attention products", r"B[HTS]+K?,B[HTS]+K?->"),
    ("softmax and masks", r"attention/"),
    ("norms", r"norm/"),
    ("dropout, activations, residuals", r"[Dd]ropout|feed_forward|frame/"),
    ("loss", r"logit_sums"),
    ("embeddings", r"embedding|positions"),
    ("unstacking and stacking layers", r"(encoder|decoder)/(slice|concatenate|squeeze|broadcast_in_dim|add_any)$"),
    ("loss", r"jvp\("),
)
REST = "optimizer, norms of gradients, the rest"


def part_of(name: str) -> str:
    """The part of the model that an operation belongs to, by its name."""
    return next((part for part, pattern in PARTS if re.search(pattern, name)), REST)


def operations(rows: int, length: int) -> dict[str, float]:
    """Operations of the products of each part in a step, the gradients' included: three products for each one."""
    tokens, width = rows * length, BASE.width
    layers = BASE.encoder_layers, BASE.decoder_layers
    return {
        "feed-forward products": 3 * sum(layers) * 2 * tokens * 2 * width * BASE.ffn_width,
        "projections": 3 * (layers[0] + 2 * layers[1]) * 2 * tokens * 4 * width**2,
        "vocabulary products": 3 * 2 * tokens * width * BASE.vocab_size,
        "attention products": 3 * (layers[0] + 2 * layers[1]) * 2 * tokens * 2 * length * width,
    }


def passes(rows: int, length: int, params: int) -> dict[str, float]:
    """Bytes that each other part reads and writes in a step, in float32, if it reads and writes each array by itself.

    An elementwise function of one array takes five passes over it: forward one to read and one to write, backward the
    array, the gradient behind it and the one before it.
    """
    tokens, layers, decoder = rows * length, BASE.encoder_layers + BASE.decoder_layers, BASE.decoder_layers
    activations, sublayers = 4 * tokens * BASE.width, 2 * layers + decoder
    return {
        "softmax and masks": 5 * 4 * (layers + decoder) * rows * BASE.num_heads * length**2,
        "norms": 5 * sublayers * activations,
        # A residual is read beside what is added to it; its gradient goes on as it is.
        "dropout, activations, residuals": 6 * sublayers * activations + 5 * layers * 4 * tokens * BASE.ffn_width,
        "loss": 3 * 4 * tokens * BASE.vocab_size,  # logits read, then read again and their gradient written
        "embeddings": 2 * 4 * activations,  # rows of two lookups read and written, and so are their gradients
        "unstacking and stacking layers": 0,  # layers could lie as the step reads them
        REST: 7 * params,  # Adam reads four arrays and writes three
    }


def seconds(function: Callable[..., Any], *arguments: Any, times: int = 20) -> float:
    """Of one call of a jitted function, the least of some tries."""
    jax.block_until_ready(function(*arguments))
    least = float("inf")
    for _ in range(times):
        began = time.monotonic()
        jax.block_until_ready(function(*arguments))
        least = min(least, time.monotonic() - began)
    return least


def ceilings() -> tuple[float, float]:
    """Operations a second of a large product, bytes a second of a large copy, read and written."""
    x, kernel = jnp.ones((2048, 2048)), jnp.ones((2048, 2048))
    product = 2 * 2048**3 / seconds(jax.jit(jnp.matmul), x, kernel)
    large = jnp.ones((64, 2**20))
    return product, 2 * large.nbytes / seconds(jax.jit(lambda x: x + 1), large)


def traced(program: Callable[[], Any], folder: Path) -> collections.Counter[str]:
    """Seconds of every instruction of a program, by its name, of one step."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(str(folder), profiler_options=options):
        for _ in range(STEPS):
            program()
    found: collections.Counter[str] = collections.Counter()
    for path in folder.glob("**/*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for event in (event for line in plane.lines for event in line.events):
                if any(key == "hlo_op" for key, _ in event.stats):
                    found[event.name] += event.duration_ns / STEPS / 1e9
    return found


def profile(rows: int, length: int, folder: Path) -> list[dict[str, Any]]:
    """The table."""
    mesh = sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
    trainer = Trainer(experiment_of(BASE, rows, length), mesh, 1_000)
    state, batch, asked = (
        trainer.new_state(),
        sharding.placed(mesh, batch_of(sentences(rows, length))),
        trainer.asked(0),
    )
    compiled = trainer.train_step.lower(state, batch, asked).compile()
    names = dict(re.findall(r"%?([\w.\-]+) = .*?op_name=\"([^\"]*)\"", compiled.as_text()))

    def step() -> None:
        nonlocal state
        state, told = compiled(state, batch, asked)
        jax.block_until_ready((state, told))

    for _ in range(2):
        step()
    began = time.monotonic()
    step()
    whole = time.monotonic() - began
    by_part: collections.Counter[str] = collections.Counter()
    for instruction, taken in traced(step, folder).items():
        by_part[part_of(re.sub(r"\d", "", names.get(instruction, instruction)))] += taken
    product, copy = ceilings()
    counted = operations(rows, length)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    floors = {part: count / product for part, count in counted.items()}
    floors |= {part: moved / copy for part, moved in passes(rows, length, held).items()}
    table = [
        {"part": part, "s": taken, "share": taken / sum(by_part.values()), "floor s": floors.get(part)}
        for part, taken in by_part.most_common()
    ]
    total = {"part": "all instructions", "s": sum(by_part.values()), "share": 1.0, "floor s": sum(floors.values())}
    untraced = {"part": "a step without the trace", "s": whole, "floor s": sum(counted.values()) / product}
    return [*table, total, untraced, {"part": f"{product / 1e9:,.0f} GFLOP/s, {copy / 1e9:.0f} GB/s"}]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32, help="sentences of a batch")
    parser.add_argument("--length", type=int, default=32, help="tokens of both sides")
    parser.add_argument("--trace", type=Path, help="a folder that keeps the trace")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = profile(options.rows, options.length, options.trace or Path(temporary))
    timing.report(f"A training step by parts, {options.rows} x ({options.length} + {options.length}) tokens", rows)


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread: what waits for a core counts for nothing
    main()
