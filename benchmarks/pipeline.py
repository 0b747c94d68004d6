"""How fast the data side is, on one core: `python -m benchmarks.pipeline [--multi30k DIR] [--rows 96] [--length 256]`.

Each stage by itself, over all training pairs of the default experiment or of Multi30k: training the tokenizer, ids of
both sides, the packing plan of an epoch, and its batches as arrays. A run pays the first two once, the third once an
epoch, and the last beside each step, in a thread of its own. Then what is paid anew in every epoch by runs that draw:
the examples of each objective that hides something of a text, on the target side alone, of a line and of 15 lines each,
and pieces that are drawn (bpe, 0.1); and by those that stream: tokens out of shards, in any order.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import multi30k, timing
from transformer_jax import sharding
from transformer_jax.config import (
    BatchConfig,
    Denoising,
    Experiment,
    MaskedLanguageModel,
    ObjectiveConfig,
    PrefixLanguageModel,
    SpanCorruption,
    Translation,
)
from transformer_jax.data.batches import batches_of, examples_in, examples_of
from transformer_jax.data.corpus import Corpus
from transformer_jax.data.shards import Manifest, Shards, write_lengths, write_shard
from transformer_jax.data.sources import Pairs, load_pairs
from transformer_jax.data.tokenizer import Tokenizers, train_tokenizers
from transformer_jax.data.tokens import tokenise
from transformer_jax.runs import load_experiment

LINES = 15  # of a longer text
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
    yield from drawn(pairs, experiment, batch)


def drawn(pairs: Pairs, experiment: Experiment, batch: BatchConfig) -> Iterator[dict[str, Any]]:
    """A row for each way to draw an epoch."""
    masks = replace(experiment.tokenizer, masks=batch.target_length)
    model = replace(experiment.model, vocab_size=experiment.model.vocab_size + batch.target_length)
    tokenizers = train_tokenizers(masks, model, pairs.sources or (), pairs.targets)
    everything, lines = np.arange(len(pairs)), list(pairs.targets)
    joined = [" ".join(lines[start : start + LINES]) for start in range(0, len(lines), LINES)]
    ways: dict[str, tuple[Pairs, ObjectiveConfig, float]] = {
        f"examples: {objective.kind}{name}": (Pairs(None, texts), objective, 0.0)
        for name, texts in (("", lines), (f", of {LINES} lines", joined))
        for objective in (MaskedLanguageModel(), SpanCorruption(), Denoising(), PrefixLanguageModel())
    }
    ways["examples: drawn pieces"] = (pairs, Translation(), 0.1)
    with tempfile.TemporaryDirectory() as folder:
        for name, (own, objective, sampling) in ways.items():
            corpus = examples_of(own, objective, tokenizers, batch, experiment.seed, Path(folder), sampling)
            yield _timed(name, corpus, everything)
        write_shards(pairs, tokenizers, Path(folder))
        streamed = examples_in(Shards(Path(folder)), Translation(), tokenizers, batch, experiment.seed)
        yield _timed("examples: from shards", streamed, np.random.default_rng(0).permutation(everything))


def _timed(name: str, corpus: Corpus, chosen: np.ndarray) -> dict[str, Any]:
    chosen = chosen[chosen < len(corpus)]
    started = time.process_time()
    examples = corpus.draw(0, chosen)
    seconds = time.process_time() - started
    tokens = int(examples.lengths.sum())
    return {
        "stage": name,
        "CPU s": seconds,
        "pairs / s": len(examples) / seconds,
        "target tokens / s": None,
        "tokens / s": tokens / seconds,
    }


def write_shards(pairs: Pairs, tokenizers: Tokenizers, folder: Path) -> None:
    """All pairs in one shard, with what a folder of shards has beside it."""
    tokens = tokenise(pairs, tokenizers, folder)
    shard = write_shard(folder, 0, tokens, "<u4", pairs.digest, tokenizers.digest)
    Manifest(
        plain=False,
        per_shard=len(pairs),
        dtype="<u4",
        experiment={},
        digest=pairs.digest,
        tokenizer=tokenizers.digest,
        lengths=write_lengths(folder, 1),
        shards=(shard,),
    ).save(folder)


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
