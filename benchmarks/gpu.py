"""Training, decoding and attention on one GPU: `python -m benchmarks.gpu [--parts train decode attention]`.

Wall seconds, medians, systems in turn, in bfloat16, within ten minutes in all. First what the card reaches: a large
matrix product, a large copy. Then a step of the paper's base and big model over 8,000 pieces, 32,768 tokens of each
side, dropout but not of attention weights: ours and torch.compile with scaled_dot_product_attention and a fused Adam,
with the share of that ceiling that the operations of the model come to. Then 64 sentences of 32 tokens, beam 4 and
greedy, ours and Hugging Face's generate; and the gradient of attention in each way that we have it, by lengths and by
segments. Without a GPU all of it runs on the CPU at toy size, to show that it runs.

Needs the extra "bench".
"""

import argparse
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs memory of the same card

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import decode, timing, train_step
from benchmarks.base import BASE, attention_at_once, batch_of, experiment_of, parameters, sentences
from transformer_jax.attention import blockwise_attention, flash
from transformer_jax.masks import SegmentMask
from transformer_jax.training import planning

ON_GPU = jax.default_backend() == "gpu"
DEVICE = "cuda" if ON_GPU else "cpu"
PARTS = ("train", "decode", "attention")
PLAIN = replace(BASE, attention_dropout=0.0, activation_dropout=0.0)
TOY = {"width": 64, "num_heads": 2, "ffn_width": 128, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 500}
MODELS = {
    "base": PLAIN if ON_GPU else replace(PLAIN, **TOY),
    "big": replace(PLAIN, width=1024, num_heads=16, ffn_width=4096) if ON_GPU else replace(PLAIN, **TOY),
}
TIMES = 20  # a product and a copy in one program
ROWS, LENGTH = (256, 128) if ON_GPU else (4, 16)
SENTENCES, TOKENS = (64, 32) if ON_GPU else (4, 8)
ATTENDED = {128: 256, 512: 64, 2048: 16, 4096: 8} if ON_GPU else {32: 4, 64: 2}  # rows of each length


def timed(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median wall seconds of each."""
    return {name: times["wall_median"] for name, times in timing.in_turn(runs, rounds).items()}


def waited(function: Callable[..., Any], *arguments: Any) -> Callable[[], object]:
    """A call of a jitted function that waits for its result."""
    return lambda: jax.block_until_ready(function(*arguments))


def ceilings(rounds: int) -> tuple[float, list[dict[str, Any]]]:
    """Operations a second of a large product in bfloat16, and a row for it and for a large copy."""
    size = 8192 if ON_GPU else 512
    x = jax.random.normal(jax.random.key(0), (size, size))

    def repeated(step: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        return jax.jit(lambda x: jax.lax.fori_loop(0, TIMES, lambda _, x: step(x), x))

    half = x.astype(jnp.bfloat16) / size**0.5  # of about the same size after each product with itself
    runs = {"product": waited(repeated(lambda y: half @ y), half), "copy": waited(repeated(lambda x: x + 1), x)}
    product, copy = (seconds / TIMES for seconds in timed(runs, rounds).values())
    operations, moved = 2 * size**3 / product, 2 * x.nbytes / copy
    return operations, [
        {"what": "a large product", "system": "XLA", "ms": 1e3 * product, "TFLOP / s": operations / 1e12},
        {"what": "a large copy", "system": "XLA", "ms": 1e3 * copy, "GB / s": moved / 1e9},
    ]


def train_rows(name: str, ceiling: float, rounds: int) -> Iterator[dict[str, Any]]:
    """A training step."""
    config = MODELS[name]
    params, pair = parameters(config), sentences(ROWS, LENGTH, vocab_size=config.vocab_size)
    tokens, check = int((pair[1] > 0).sum()), (pair[0][:2], pair[1][:2])
    flops = planning.step_operations(experiment_of(config, ROWS, LENGTH))
    losses, runs = {}, {}
    losses["ours"], runs["ours"] = train_step.ours(config, "bfloat16", params, check, [batch_of(pair)])
    for peer in ("torch.compile",):
        losses[peer], runs[peer] = train_step.theirs(peer, config, "bfloat16", params, check, [pair], DEVICE)
        assert abs(losses[peer] - losses["ours"]) < 0.05, losses
    taken = timed(runs, rounds)
    for system, seconds in taken.items():
        yield {
            "what": f"a step of {name}, {ROWS} x ({LENGTH} + {LENGTH})",
            "system": system,
            "ms": 1e3 * seconds,
            "times ours": seconds / taken["ours"],
            "target tokens / s": tokens / seconds,
            "TFLOP / s": flops / seconds / 1e12,
            "share of the ceiling": flops / seconds / ceiling,
        }


def decode_rows(rounds: int) -> Iterator[dict[str, Any]]:
    """Decoding."""
    config = MODELS["base"]
    params, source = parameters(config), decode.sources(SENTENCES, TOKENS, config.vocab_size)
    for search, beam in decode.BEAMS.items():
        exact = {
            decode.OURS[0]: decode.ours(config, "float32", params, source, beam),
            "Hugging Face": decode.hugging_face(config, params, source, beam, DEVICE),
        }
        with jax.default_matmul_precision("float32"):
            decode.check({name: run() for name, run in exact.items()})
        runs = {
            "ours": decode.ours(config, "bfloat16", params, source, beam),
            "Hugging Face": decode.hugging_face(config, params, source, beam, DEVICE, "bfloat16"),
        }
        taken = timed(runs, rounds)
        for system, seconds in taken.items():
            yield {
                "what": f"{SENTENCES} sentences of {TOKENS}, {search}",
                "system": system,
                "ms": 1e3 * seconds,
                "times ours": seconds / taken["ours"],
                "target tokens / s": SENTENCES * TOKENS / seconds,
            }


def _loss(attend: Callable[..., jax.Array], mask: SegmentMask) -> Callable[[list[jax.Array]], jax.Array]:
    return lambda arrays: (attend(*arrays, mask).astype(jnp.float32) ** 2).sum()


def ways(length: int, rows: int) -> Iterator[tuple[str, Callable[..., jax.Array], SegmentMask]]:
    """Each way that causal attention is computed, and the mask that it is given: of one sentence a row, or of four."""
    lengths = np.random.default_rng(0).integers(3 * length // 4, length + 1, rows)
    one = jnp.asarray(np.arange(length) < lengths[:, None], jnp.int32)
    four = one * (1 + jnp.arange(length)[None] * 4 // length)
    single = SegmentMask(one, one, causal=True, packed=False)
    packed = SegmentMask(four, four, causal=True)

    yield "XLA, all at once", attention_at_once, packed
    yield "XLA, in blocks", blockwise_attention, packed
    if ON_GPU:
        yield "cuDNN, segments", flash.cudnn_attention, packed
        yield "cuDNN, lengths", flash.cudnn_attention, single


def attention_rows(length: int, rows: int, rounds: int) -> Iterator[dict[str, Any]]:
    """The gradient of attention alone, 8 heads of 64; value and gradients first within rounding of the reference."""
    arrays = [jax.random.normal(jax.random.key(seed), (rows, length, 8, 64)).astype(jnp.bfloat16) for seed in range(3)]
    runs: dict[str, Callable[[], object]] = {}
    for name, attend, mask in ways(length, rows):
        gradient, reference = (jax.jit(jax.value_and_grad(_loss(way, mask))) for way in (attend, attention_at_once))
        for found, expected in zip(*(jax.tree.leaves(one(arrays)) for one in (gradient, reference)), strict=True):
            apart = jnp.abs(found.astype(jnp.float32) - expected.astype(jnp.float32)).max()
            assert apart < 0.05 * jnp.abs(expected).max(), f"{name}: {apart} from the reference"
        runs[name] = waited(gradient, arrays)
    taken = timed(runs, rounds)
    first = next(iter(taken.values()))
    for name, seconds in taken.items():
        what = f"attention, {rows} x {length}, forward and backward"
        yield {"what": what, "system": name, "ms": 1e3 * seconds, "times the first": seconds / first}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ceiling, rows = ceilings(options.rounds)
    made: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "train": lambda: (row for name in options.models for row in train_rows(name, ceiling, options.rounds)),
        "decode": functools.partial(decode_rows, options.rounds),
        "attention": lambda: (
            row for length, count in ATTENDED.items() for row in attention_rows(length, count, options.rounds)
        ),
    }
    for part in options.parts:
        for row in made[part]():
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)  # should the time run out
            rows.append(row)
    timing.report(f"On {jax.devices()[0].device_kind}", rows, "jaxlib", "torch", "transformers")


if __name__ == "__main__":
    main()
