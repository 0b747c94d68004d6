"""Token shards of generated pairs: `python -m benchmarks.preparing [--pairs 4000000] [--processes 1 2] [--folder DIR]`.

Text files of 12 words a side, made up, the frequent ones more often. The verb `prepare` is timed with each number of
processes, the start of Python and the training of the tokenizer included; then it is killed after a share of that time
and begun again. All have to write the same files, byte for byte: else the exit code is 1. Last, what a run on them
waits for, in a process of its own: the seconds from its start to its first batch, and the most memory that it holds
until it has made so many. 4,000,000 pairs take about 2 GB of disk.
"""

import argparse
import json
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing
from transformer_jax.data.shards import Manifest
from transformer_jax.files import digest_of

MODULE = "benchmarks.preparing"
WORDS, LENGTH = 2_000, 12  # of the language, and of a line
CHUNK = 50_000  # lines that are made at once
BATCHES = 100  # of a run, about three of the windows it plans in
EXPERIMENT = """
from transformer_jax.config import *

def get_config():
    return Experiment(
        data=TextFiles(dir={dir!r}),
        tokenizer=TokenizerConfig(examples=100_000),
        batch=BatchConfig(rows=96, source_length=256, target_length=256),
        model=ModelConfig(vocab_size=8_000),
        training=TrainingConfig(epochs=1),
        mesh=MeshConfig(data=1),
    )
"""


def write_pairs(folder: Path, count: int) -> Path:
    """Files of so many pairs, of which the target has the words backwards, and the experiment on them."""
    random = np.random.default_rng(0)
    letters = np.array(list(string.ascii_lowercase))
    words = ["".join(random.choice(letters, random.integers(2, 10))) for _ in range(WORDS)]
    sides = np.array(words), np.array([word[::-1] for word in words])
    frequencies = 1 / np.arange(10, WORDS + 10)
    with (folder / "train.source").open("w") as source, (folder / "train.target").open("w") as target:
        for start in range(0, count, CHUNK):
            shape = min(CHUNK, count - start), LENGTH
            drawn = random.choice(WORDS, shape, p=frequencies / frequencies.sum())
            for file, side in zip((source, target), sides, strict=True):
                file.write("".join(f"{' '.join(line)}\n" for line in side[drawn].tolist()))
    experiment = folder / "generated.py"
    experiment.write_text(EXPERIMENT.format(dir=str(folder)))
    return experiment


def command(experiment: Path, output: Path, processes: int) -> list[str]:
    """The command line that prepares."""
    arguments = [str(experiment), "--output", str(output), "--workers", str(processes)]
    return [sys.executable, "-m", "transformer_jax.cli.main", "prepare", *arguments]


def seconds_of(arguments: Sequence[str]) -> float:
    """How long a process takes.

    Raises:
        SystemExit: where it fails.
    """
    began = time.monotonic()
    done = subprocess.run(arguments, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}")
    return time.monotonic() - began


def kill(arguments: Sequence[str], seconds: float) -> None:
    """Starts a process and kills it after so many seconds.

    Raises:
        SystemExit: where it has ended before.
    """
    with subprocess.Popen(arguments, stdout=sys.stderr) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(
            f"it ended within {seconds:.1f} s, before it was killed: a lower --killed-after, or more pairs"
        )


def digests(folder: Path) -> dict[str, str]:
    """Of all files that were prepared."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {str(path.relative_to(folder)): digest_of(path) for path in sorted(files)}


def preparations(experiment: Path, folder: Path, options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Path]]:
    """A row for each number of processes, and one for what was killed and begun again, with what each has written."""

    def row(what: str, seconds: float) -> dict[str, Any]:
        return {"what": what, "s": seconds, "pairs / s": options.pairs / seconds}

    seconds = 0.0
    for processes in options.processes:
        output = folder / f"prepared-{processes}"
        seconds = seconds_of(command(experiment, output, processes))
        yield row(f"prepare --workers {processes}", seconds), output
    output = folder / "killed"
    again, until = command(experiment, output, options.processes[-1]), options.killed_after * seconds
    kill(again, until)
    kept = len(list(output.glob("tokens-*.json")))
    rest = seconds_of(again)
    yield {**row(f"killed after {until:.1f} s, begun again", until + rest), "shards kept": kept}, output


def first_batch(experiment: Path, prepared: Path, began: float) -> dict[str, float]:
    """In a process of its own: what a run has loaded by its first batch, and what it holds by its last one."""
    from contextlib import closing
    from dataclasses import replace
    from itertools import islice

    from transformer_jax import sharding
    from transformer_jax.runs import RunFolder, load_experiment
    from transformer_jax.training import data as datasets

    chosen = replace(load_experiment(experiment), prepared=str(prepared))
    with tempfile.TemporaryDirectory() as folder:
        data = datasets.load(chosen, RunFolder(folder), sharding.make_mesh(chosen.mesh))
        with closing(data.training_batches.batches()) as batches:
            next(batches)
            seconds = time.time() - began
            made = 1 + sum(1 for _ in islice(batches, BATCHES - 1))
    return {"s": seconds, "batches": made, "peak": timing.peak_memory()}


def measure(folder: Path, options: argparse.Namespace) -> bool:
    """Prints the table; returns whether all that was prepared is the same."""
    began = time.monotonic()
    experiment = write_pairs(folder, options.pairs)
    print(f"text written in {time.monotonic() - began:.0f} s", file=sys.stderr)
    rows, found = [], []
    for row, output in preparations(experiment, folder, options):
        found.append(digests(output))
        rows.append({**row, "files as the first": "yes" if found[-1] == found[0] else "NO"})
    prepared = folder / f"prepared-{options.processes[0]}"
    arguments: list[Any] = ["--experiment", experiment, "--prepared", prepared, "--began", time.time()]
    run = timing.child(MODULE, arguments)
    rows.append({"what": "first batch of a run", "s": run["s"]})
    rows.append({"what": f"{run['batches']} batches of it", "peak MiB": run["peak"] // 2**20})
    shards = Manifest.load(prepared).shards
    tokens = sum(shard.source_tokens + shard.target_tokens for shard in shards)
    size = sum(shard.size for shard in shards) / 2**20
    timing.report(
        f"{options.pairs:,} pairs of {LENGTH} words, {tokens:,} tokens, {len(shards)} shards of {size:.0f} MiB", rows
    )
    return all(one == found[0] for one in found)


def main() -> int:
    """Measures and prints; 1 where what was prepared is not the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4_000_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--killed-after", type=float, default=0.5, help="share of the time of the last number")
    parser.add_argument("--folder", type=Path, help="where the temporary folder lies")
    parser.add_argument("--experiment", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepared is not None:
        print(json.dumps(first_batch(options.experiment, options.prepared, options.began)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return int(not measure(Path(folder), options))


if __name__ == "__main__":
    sys.exit(main())
