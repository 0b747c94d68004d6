"""How fast the data side is, on one core: `python -m benchmarks.pipeline [--multi30k DIR] [--rows 96] [--length 256]`.

Each stage by itself, over all training pairs of the default experiment or of Multi30k: training the tokenizer, ids of
both sides, the packing plan of an epoch, and its batches as arrays. A run pays the first two once, the third once an
epoch, and the last beside each step, in a thread of its own.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks import multi30k, timing
from transformer_jax import sharding
from transformer_jax.config import BatchConfig, Experiment
from transformer_jax.data.batches import batches_of
from transformer_jax.data.sources import load_pairs
from transformer_jax.data.tokenizer import train_tokenizers
from transformer_jax.runs import load_experiment

DEFAULT = Path(__file__).parents[1] / "experiments" / "numerals.py"


def stages(experiment: Experiment, batch: BatchConfig) -> Iterator[dict[str, Any]]:
    """A row for each stage."""
    pairs = load_pairs(experiment.data, "train")
    assert pairs is not None
    mesh = sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])

    def row(stage: str, seconds: float, tokens: int | None, **more: Any) -> dict[str, Any]:
        return {
            "stage": stage,
            "CPU s": seconds,
            "pairs / s": len(pairs) / seconds,
            "target tokens / s": tokens and tokens / seconds,
            **more,
        }

    clock = [time.process_time()]

    def lap() -> float:
        clock.append(time.process_time())
        return clock[-1] - clock[-2]

    tokenizers = train_tokenizers(experiment.tokenizer, experiment.model, pairs.sources, pairs.targets)
    yield row("training the tokenizer", lap(), None)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = batches_of(pairs, tokenizers, batch, mesh, experiment.seed, Path(folder))
    tokenised, steps = lap(), pipeline.steps_of(0)
    planned = lap()
    batches = [pipeline.rows(0, index * batch.rows, (index + 1) * batch.rows) for index in range(steps)]
    made = lap()
    tokens = int(sum(one.target_tokens() for one in batches))
    filled = tokens / (steps * batch.rows * batch.target_length)
    yield row("ids of both sides", tokenised, tokens)
    yield row("the packing plan of an epoch", planned, tokens)
    yield row("its batches", made, tokens, **{"share of places filled": filled})


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multi30k", help="the folder of its files, instead of the numerals")
    parser.add_argument("--rows", type=int, default=96, help="of a batch")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row, on both sides")
    options = parser.parse_args()
    experiment = multi30k.experiment(options.multi30k) if options.multi30k else load_experiment(DEFAULT)
    batch = BatchConfig(rows=options.rows, source_length=options.length, target_length=options.length)
    name = "Multi30k" if options.multi30k else "numerals"
    rows = list(stages(experiment, batch))
    timing.report(f"The data side, {name}, batches of {batch.rows} x ({options.length} + {options.length})", rows)


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    main()
