"""How long until something happens: `python -m benchmarks.compile [--experiment FILE] [--rounds 3]`.

Seconds from the start of the program to the end of the first step of a fresh run, and to the first translation with
that run, each in a process of its own: cold, with no program compiled before, and cached, as every later time. Beside
them the programs that were compiled, or read from the cache, and the seconds that took.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import timing

DEFAULT = Path(__file__).parents[1] / "experiments" / "numerals.py"
MODULE = "benchmarks.compile"
COMPILED = "/jax/core/compile/backend_compile_duration"
SHORT_RUN = """
import sys
from transformer_jax.runs import load_experiment
from transformer_jax.training import loop
loop.train(load_experiment(sys.argv[1]), sys.argv[2], until=1)
"""
WORK, STATES = ("first step", "first translation"), ("cold", "cached")


class Done(BaseException):
    """The first step is; not an error, which the command line would turn into a line."""


def first_step(experiment: Path, run: Path) -> float:
    """Starts a run and ends it behind its first step; returns when that was done."""
    import jax

    from transformer_jax.cli.main import main
    from transformer_jax.training import profiling

    def stop(self: Any, step: Callable[[], Any], number: int) -> None:
        jax.block_until_ready(step())
        raise Done

    profiling.Profile.run = stop
    try:
        main(["train", str(experiment), "--workdir", str(run)])
    except Done:
        return time.time()
    raise SystemExit("the run ended without a step")


def first_translation(run: Path) -> float:
    """Translates a line from standard input; returns when that was done."""
    from transformer_jax.cli.main import main

    with tempfile.TemporaryFile() as line:
        line.write(b"forty-two thousand and seven\n")
        line.seek(0)
        os.dup2(line.fileno(), 0)
        if main(["translate", str(run)]):
            raise SystemExit("the translation failed")
    return time.time()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: the seconds since it was asked for, and what was compiled."""
    from transformer_jax.cli.main import set_up_process

    set_up_process()
    import jax

    compiled: list[float] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event == COMPILED:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    done = first_step(options.experiment, options.run) if options.child == WORK[0] else first_translation(options.run)
    return {"wall": done - options.began, "programs": len(compiled), "compiling": sum(compiled)}


def child(work: str, experiment: Path, run: Path) -> dict[str, float]:
    """What that process measures."""
    arguments: list[Any] = ["--child", work, "--experiment", experiment, "--run", run, "--began", time.time()]
    result: dict[str, float] = timing.child(MODULE, arguments)
    return result


def rounds(experiment: Path, count: int) -> list[dict[str, Any]]:
    """The table."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            with timing.environment(JAX_COMPILATION_CACHE_DIR=f"{folder}/training"):
                for state in STATES:
                    found.setdefault((WORK[0], state), []).append(child(WORK[0], experiment, Path(folder) / state))
                subprocess.run([sys.executable, "-c", SHORT_RUN, experiment, f"{folder}/run"], check=True)
            with timing.environment(JAX_COMPILATION_CACHE_DIR=f"{folder}/translating"):
                for state in STATES:
                    found.setdefault((WORK[1], state), []).append(child(WORK[1], experiment, Path(folder) / "run"))
    return [
        {
            "what": work,
            "state": state,
            "wall s": statistics.median(one["wall"] for one in many),
            "min": min(one["wall"] for one in many),
            "programs": int(many[0]["programs"]),
            "compiling or reading s": statistics.median(one["compiling"] for one in many),
        }
        for (work, state), many in found.items()
    ]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options)))
        return
    timing.report(
        f"Until the first step and translation, {options.experiment.stem}", rounds(options.experiment, options.rounds)
    )


if __name__ == "__main__":
    main()
