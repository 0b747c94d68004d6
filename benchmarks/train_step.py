"""A training step beside its peers: `python -m benchmarks.train_step [--rounds 5] [--shapes 32x32 16x64]`.

The paper's base model over 8,000 pieces, dropout of 0.1 everywhere, label smoothing, Adam; sources and targets of 75 to
100% of each shape's length. Ours, torch.nn.Transformer eager and compiled, Hugging Face's Marian; first all are given
the same weights and must give the same loss. Then one step each, in turn: CPU seconds on one core, wall seconds on all
of them, and the most memory that each holds in a process of its own. `--multi30k DIR` trains on rows that are packed
from Multi30k instead, the peers on batches of sentences of like lengths with as many places.

Needs the extra "bench".
"""

import argparse
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax

from benchmarks import timing
from benchmarks.base import BASE, Pair, batch_of, experiment_of, parameters, sentences
from transformer_jax import ModelConfig
from transformer_jax.data.batch import Batch

BUCKETED = "ours, like lengths"  # instead of packed rows, of Multi30k
SYSTEMS = ("ours", "torch eager", "torch.compile", "Hugging Face", BUCKETED)
PRECISIONS = ("float32", "bfloat16")
BATCHES = 4  # of Multi30k, a step on each
CLOSE = 2e-4  # nats: the loss of the same weights
MODULE = "benchmarks.train_step"
Run = Callable[[], Any]


def ours(config: ModelConfig, precision: str, params: Any, check: Pair, batches: list[Batch]) -> tuple[float, Run]:
    """The loss without dropout, and steps of what `transformer-jax train` runs, one on each batch."""
    from transformer_jax import sharding
    from transformer_jax.training.step import Trainer

    assert batches[0].target is not None
    experiment = experiment_of(replace(config, dtype=precision), *batches[0].target.tokens.shape)
    mesh = sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
    trainer, placed = Trainer(experiment, mesh, 1_000), [sharding.placed(mesh, batch) for batch in batches]
    state = replace(trainer.new_state(), params=jax.device_put(params, trainer.state_sharding.params))
    sums = trainer.eval_step(state.params, sharding.placed(mesh, batch_of(check)))
    asked = trainer.asked(0)

    def steps() -> None:
        nonlocal state
        for batch in placed:
            state, told = trainer.train_step(state, batch, asked)
            jax.block_until_ready((state, told))

    return float(sums.log_loss / sums.tokens), steps


def theirs(
    name: str, config: ModelConfig, precision: str, params: Any, check: Pair, pairs: list[Pair], device: str = "cpu"
) -> tuple[float, Run]:
    """The loss without dropout, and steps, one on each pair, of a system that runs on torch."""
    import torch

    from benchmarks.peers import TorchTransformer, marian

    torch.set_num_threads(timing.all_cores())
    model: Any = (marian if name == "Hugging Face" else TorchTransformer)(config, params)
    model = model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, betas=(0.9, 0.98), eps=1e-9, fused=True)

    def logits(read: torch.Tensor, shifted: torch.Tensor) -> torch.Tensor:
        if name == "Hugging Face":
            return model(input_ids=read, attention_mask=(read != 0).long(), decoder_input_ids=shifted).logits
        return model(read, shifted)

    def loss(read: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
        shifted = torch.nn.functional.pad(targets, (1, 0))[:, :-1]
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            scores = logits(read, shifted)
        return torch.nn.functional.cross_entropy(
            scores.flatten(0, 1).float(), targets.flatten(), ignore_index=0, label_smoothing=smoothing
        )

    def tensors(pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(pair[0], device=device), torch.tensor(pair[1], device=device).long()

    model.eval()
    with torch.no_grad():
        plain = loss(*tensors(check), 0.0).item()
    model.train()
    run_loss = torch.compile(loss, dynamic=False) if name == "torch.compile" else loss
    batches = [tensors(pair) for pair in pairs]

    def steps() -> None:
        for read, targets in batches:
            optimizer.zero_grad(set_to_none=True)
            run_loss(read, targets, 0.1).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return plain, steps


def measure(options: argparse.Namespace) -> Any:
    """In a process of its own: the times of all systems on the same work, or the memory of one of them."""
    params = parameters()
    if options.multi30k:
        from benchmarks import multi30k

        batches, pairs = multi30k.batches(options.multi30k, BATCHES)
    else:
        rows, length = map(int, options.shapes[0].split("x"))
        pairs = [sentences(rows, length)]
        batches = [batch_of(pairs[0])]
    if set(options.systems) - {"ours", BUCKETED}:  # what an import holds is not the step's
        importlib.import_module("torch")
        importlib.import_module("transformers")
    runs, losses = {}, {}
    jax.clear_caches()
    before = timing.held_memory()
    for name in options.systems:
        for precision in options.precisions:
            losses[name, precision], runs[name, precision] = (
                ours(BASE, precision, params, pairs[0], batches if name == "ours" else [batch_of(p) for p in pairs])
                if name in ("ours", BUCKETED)
                else theirs(name, BASE, precision, params, pairs[0], pairs)
            )
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
    packed = [(batch.source.tokens, batch.target.targets) for batch in batches if batch.source and batch.target]
    counts = {"packed": packed, "padded": pairs}
    return {"times": times, "tokens": {name: counted(work) for name, work in counts.items()}}


def counted(pairs: list[Pair]) -> dict[str, float]:
    """Real target tokens, and the share of real ones among all places of both sides."""
    real = [[int((ids > 0).sum()) for ids in pair] for pair in pairs]
    places = sum(ids.size for pair in pairs for ids in pair)
    return {"target": sum(target for _, target in real), "share": sum(map(sum, real)) / places}


def rows_of(options: argparse.Namespace, work: list[str]) -> Iterator[dict[str, Any]]:
    """The table of some work."""
    arguments = ["--child", "--rounds", options.rounds, *work]
    chosen = ["--systems", *options.systems, "--precisions", *options.precisions]
    one = timing.child(MODULE, [*arguments, *chosen], cores=1)
    whole = timing.child(MODULE, [*arguments, *chosen]) if options.wall else one
    for key, times in one["times"].items():
        name, precision = key.split("|")
        alone = ["--systems", name, "--precisions", precision, "--memory"]
        tokens = one["tokens"]["packed" if name == "ours" else "padded"]
        yield {
            "system": name,
            "precision": precision,
            "CPU s": times["cpu_median"],
            "min": times["cpu_min"],
            "target tokens": tokens["target"],
            "real tokens": tokens["share"],
            "target tokens / CPU s": tokens["target"] / times["cpu_median"],
            "wall s": whole["times"][key]["wall_median"] if options.wall else None,
            "peak MiB": timing.child(MODULE, [*arguments, *alone], cores=1)["peak"] // 2**20 if options.peaks else None,
        }


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that every system is timed")
    parser.add_argument("--shapes", nargs="+", default=["32x32", "16x64"], help="rows x tokens of each side")
    parser.add_argument("--multi30k", help="the folder of its files: rows packed from it, instead of these shapes")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS[:-1], choices=SYSTEMS)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--wall", action=argparse.BooleanOptionalAction, default=True, help="also on all cores")
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
    packages = "torch", "transformers"
    if options.multi30k:
        rows = list(rows_of(options, ["--multi30k", options.multi30k]))
        timing.report(f"{BATCHES} training steps, packed Multi30k", rows, *packages)
        return
    for shape in options.shapes:
        timing.report(f"A training step, {shape} x 2 sides", list(rows_of(options, ["--shapes", shape])), *packages)


if __name__ == "__main__":
    main()
