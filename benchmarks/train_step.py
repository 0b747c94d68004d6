"""A training step beside its peers: `python -m benchmarks.train_step [--rounds 5] [--shapes 32x32 16x64]`.

The paper's base model over 8,000 pieces, dropout of 0.1 everywhere, label smoothing, Adam; sources and targets of 75 to
100% of each shape's length. Ours, torch.nn.Transformer eager and compiled, Hugging Face's Marian; first all are given
the same weights and must give the same loss. Then one step each, in turn: CPU seconds on one core, wall seconds on all
of them, and the most memory that each holds in a process of its own. `--multi30k DIR` trains on rows that are packed
from Multi30k instead, the peers on batches of sentences of like lengths with as many tokens.

Needs the extra "bench".
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from benchmarks.base import BASE, batch_of, experiment_of, parameters, sentences

SYSTEMS = ("ours", "torch eager", "torch.compile", "Hugging Face")
PRECISIONS = ("float32", "bfloat16")
CLOSE = 2e-4  # nats: the loss of the same weights
MODULE = "benchmarks.train_step"
Run = Callable[[], Any]


def ours(precision: str, params: Any, source: np.ndarray, target: np.ndarray) -> tuple[float, Run]:
    """The loss without dropout, and a step of what `transformer-jax train` runs."""
    from transformer_jax import sharding
    from transformer_jax.training.step import Trainer

    experiment = experiment_of(replace(BASE, dtype=precision), *source.shape)
    mesh = sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
    trainer, batch = Trainer(experiment, mesh, 1_000), sharding.placed(mesh, batch_of(source, target))
    state = replace(trainer.new_state(), params=jax.device_put(params, trainer.state_sharding.params))
    sums = trainer.eval_step(state.params, batch)
    asked = trainer.asked(0)

    def step() -> None:
        nonlocal state
        state, told = trainer.train_step(state, batch, asked)
        jax.block_until_ready((state, told))

    return float(sums.log_loss / sums.tokens), step


def theirs(name: str, precision: str, params: Any, source: np.ndarray, target: np.ndarray) -> tuple[float, Run]:
    """The loss without dropout, and a step, of a system that runs on torch."""
    import torch

    from benchmarks.peers import TorchTransformer, marian

    torch.set_num_threads(timing.all_cores())
    model: Any = marian(BASE, params) if name == "Hugging Face" else TorchTransformer(BASE, params)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, betas=(0.9, 0.98), eps=1e-9, fused=True)
    read, targets = torch.tensor(source), torch.tensor(target).long()
    shifted = torch.nn.functional.pad(targets, (1, 0))[:, :-1]

    def logits() -> torch.Tensor:
        if name == "Hugging Face":
            return model(input_ids=read, attention_mask=(read != 0).long(), decoder_input_ids=shifted).logits
        return model(read, shifted)

    def loss(smoothing: float) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            scores = logits()
        return torch.nn.functional.cross_entropy(
            scores.flatten(0, 1).float(), targets.flatten(), ignore_index=0, label_smoothing=smoothing
        )

    model.eval()
    with torch.no_grad():
        plain = loss(0.0).item()
    model.train()
    run_loss = torch.compile(loss) if name == "torch.compile" else loss

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        run_loss(0.1).backward()
        optimizer.step()

    return plain, step


def build(name: str, precision: str, params: Any, source: np.ndarray, target: np.ndarray) -> tuple[float, Run]:
    """The loss without dropout, and a step."""
    if name == "ours":
        return ours(precision, params, source, target)
    return theirs(name, precision, params, source, target)


def measure(options: argparse.Namespace) -> Any:
    """In a process of its own: the times of all systems at one shape, or the memory of one of them."""
    params = parameters()
    rows, length = map(int, options.shapes[0].split("x"))
    source, target = sentences(rows, length)
    runs, losses = {}, {}
    jax.clear_caches()
    before = timing.held_memory()
    for name in options.systems:
        for precision in options.precisions:
            losses[name, precision], runs[name, precision] = build(name, precision, params, source, target)
    for (name, precision), loss in losses.items():
        reference = losses.get(("ours", precision), loss)
        close = CLOSE if precision == "float32" else 0.02
        assert abs(loss - reference) < close, f"{name} {precision}: a loss of {loss}, ours {reference}"
    for run in runs.values():
        run()
        run()
    if options.memory:
        return {"peak": timing.peak_memory() - before}
    times = timing.in_turn({"|".join(key): run for key, run in runs.items()}, options.rounds)
    return {"times": times, "tokens": int((target > 0).sum())}


def rows_of(options: argparse.Namespace, shape: str) -> Iterator[dict[str, Any]]:
    """The table of one shape."""
    arguments = ["--child", "--rounds", options.rounds, "--shapes", shape]
    chosen = ["--systems", *options.systems, "--precisions", *options.precisions]
    one = timing.child(MODULE, [*arguments, *chosen], cores=1)
    whole = timing.child(MODULE, [*arguments, *chosen])
    for key, times in one["times"].items():
        name, precision = key.split("|")
        alone = ["--systems", name, "--precisions", precision, "--memory"]
        reference = one["times"].get(f"ours|{precision}", times)
        yield {
            "system": name,
            "precision": precision,
            "CPU s": times["cpu_median"],
            "min": times["cpu_min"],
            "times ours": times["cpu_median"] / reference["cpu_median"],
            "target tokens / CPU s": one["tokens"] / times["cpu_median"],
            "wall s": whole["times"][key]["wall_median"],
            "peak MiB": timing.child(MODULE, [*arguments, *alone], cores=1)["peak"] // 2**20 if options.peaks else None,
        }


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that every system is timed")
    parser.add_argument("--shapes", nargs="+", default=["32x32", "16x64"], help="rows x tokens of each side")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--peaks", action=argparse.BooleanOptionalAction, default=True, help="measure memory")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    options = parse()
    if options.child:
        print(json.dumps(measure(options)))
        return
    for shape in options.shapes:
        timing.report(f"A training step, {shape} x 2 sides", list(rows_of(options, shape)), "torch", "transformers")


if __name__ == "__main__":
    main()
