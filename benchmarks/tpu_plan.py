"""A training step on TPUs that are not there: `python -m benchmarks.tpu_plan [--models base big] [--lengths 256 1024]`.

The TPU compiler, which needs no TPU (`pip install ".[tpu]"`), tells of the paper's models: operations and bytes of a
step beside those counted by hand, the time that these mean at the chip's published peaks, and the transfers between
devices beside the least that fsdp needs. Then of attention alone, forward and backward, at each length: temporary
memory with all weights at once, in blocks, and by the fused kernel. All of it is a plan; nothing here was run.

What the compiler counts has two flaws. Operations and bytes of a loop are those of one round, and products that run
while their kernels travel are such loops. And bytes are those of on-chip memory too: of a step without loops they, and
the time of memory, are upper bounds.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.base import attention_at_once
from transformer_jax import accelerators, programs, sharding, topologies
from transformer_jax.attention import blockwise_attention
from transformer_jax.attention.flash import tpu_attention
from transformer_jax.config import MeshConfig
from transformer_jax.masks import SegmentMask
from transformer_jax.runs import load_experiment
from transformer_jax.training import planning
from transformer_jax.training.step import Trainer

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TOPOLOGIES = ("v5e:2x4", "v5p:2x2x1")
# Bytes a second between chips, all links of one together, as published: the time of links is a lower bound.
LINKS = {"TPU v5 lite": 200e9, "TPU v5": 600e9}
TOKENS = 16_384  # of a batch of attention, on each device
GIB = 2**30


def step_row(name: str, topology: str) -> dict[str, Any]:
    """What a step takes, all devices sharing the model by fsdp."""
    devices = topologies.tpus(topology)
    experiment = load_experiment(EXPERIMENTS / f"wmt14_en_de_{name}.py")
    mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=-1), devices)
    trainer = Trainer(experiment, mesh, 100_000)
    compiled = planning.trace(trainer).lower().compile()
    cost: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    found = programs.collectives(compiled.as_text() or "")
    kind, count = devices[0].device_kind, len(devices)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trainer.abstract_state.params))
    moved = sum(one.moved for one in found)
    least = 2 * 2 * parameters * (count - 1) // count  # in bfloat16: gathered once and kept, gradients reduced once
    twice = 3 * 2 * parameters * (count - 1) // count  # gathered again for the backward pass
    flops, hand = cost["flops"], planning.step_operations(experiment) / count
    peak, bandwidth, links = accelerators.peak_operations(kind), accelerators.peak_bandwidth(kind), LINKS.get(kind)
    if peak is None or bandwidth is None or links is None:
        raise SystemExit(f"{kind}: its peaks are not known")
    seconds = {"products": hand / peak, "memory": cost["bytes accessed"] / bandwidth, "links": moved / links}
    return {
        "model": name,
        "topology": topology,
        "TFLOP": flops / 1e12,
        "by hand": hand / 1e12,
        "ratio": flops / hand,
        "GB accessed": cost["bytes accessed"] / 1e9,
        **{f"ms of {part}": 1e3 * value for part, value in seconds.items()},
        "most share of peak": seconds["products"] / max(seconds.values()),
        "temporary GiB": memory.temp_size_in_bytes / GIB,
        "MB moved": moved / 1e6,
        "least MB": least / 1e6,
        "MB gathering twice": twice / 1e6,
        "times gathering twice": moved / twice,
        "kinds": ", ".join(f"{kind} {size / 1e6:.0f}" for kind, (_, size) in programs.moved_by_kind(found).items()),
    }


def attention_rows(length: int, heads: int, channels: int, topology: str) -> Iterator[dict[str, Any]]:
    """Temporary memory and bytes of causal attention within packed rows, forward and backward, on one device."""
    device = topologies.tpus(topology)[0]
    place = jax.sharding.SingleDeviceSharding(device)
    rows = TOKENS // length
    array = jax.ShapeDtypeStruct((rows, length, heads, channels), jnp.bfloat16, sharding=place)
    segments = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=place)
    ways: dict[str, Callable[..., jax.Array]] = {
        "all at once": attention_at_once,
        "in blocks": blockwise_attention,
        "fused kernel": tpu_attention,
    }
    for name, attend in ways.items():

        def loss(arrays: Any, segments: Any, attend: Callable[..., jax.Array] = attend) -> jax.Array:
            return attend(*arrays, SegmentMask(segments, segments, causal=True)).astype(jnp.float32).sum()

        compiled = jax.jit(jax.grad(loss)).lower((array,) * 3, segments).compile()
        cost: Any = compiled.cost_analysis()
        yield {
            "topology": topology,
            "length": length,
            "attention": name,
            "temporary MiB": compiled.memory_analysis().temp_size_in_bytes / 2**20,
            "GB accessed": None if attend is blockwise_attention else cost["bytes accessed"] / 1e9,
        }


def main() -> None:
    """Compiles and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["base", "big"], choices=["base", "big"])
    parser.add_argument("--topologies", nargs="+", default=list(TOPOLOGIES), help="such as v5e:2x4")
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 512, 1024, 2048, 4096])
    options = parser.parse_args()
    steps = [step_row(name, topology) for topology in options.topologies for name in options.models]
    if steps:
        timing.report("A training step on TPUs, of one device: a plan", steps, "libtpu")
    rows = [row for length in options.lengths for row in attention_rows(length, 8, 64, options.topologies[0])]
    if rows:
        timing.report(f"Attention of {TOKENS:,} tokens, 8 heads of 64, on one TPU: a plan", rows, "libtpu")


if __name__ == "__main__":
    main()
