"""Systems timed in turn, on one core and on all of them, and the tables that come of it."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HUGE_PAGES = "glibc.malloc.hugetlb=1"  # as the Makefile sets it, for all systems alike


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of every round."""

    cpu: list[float]
    wall: list[float]

    def summary(self) -> dict[str, float]:
        """Medians and minima."""
        return {
            f"{kind}_{name}": function(getattr(self, kind))
            for kind in ("cpu", "wall")
            for name, function in (("median", statistics.median), ("min", min))
        }


def in_turn(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Times of functions that wait for their results, one after the other, so many rounds.

    Each runs once before it is timed: while others ran, a virtual machine may have taken back the memory it had freed,
    and to get that again can cost more than the work itself.
    """
    times = {name: Times([], []) for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            began, used = time.monotonic(), time.process_time()
            run()
            times[name].cpu.append(time.process_time() - used)
            times[name].wall.append(time.monotonic() - began)
    return {name: measured.summary() for name, measured in times.items()}


def child(module: str, arguments: Iterable[object], cores: int | None = None) -> Any:
    """What a script prints as its last line, in JSON, in a process of its own that stays on so many cores.

    Raises:
        SystemExit: where it fails.
    """
    there = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {"GLIBC_TUNABLES": HUGE_PAGES, **os.environ, "OMP_NUM_THREADS": str(len(there))}
    pin = ["taskset", "--cpu-list", ",".join(map(str, there))]
    done = subprocess.run([*pin, *command], stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """These variables in the environment of child processes."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def all_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def peak_memory() -> int:
    """The most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def held_memory() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for package in ("jax", *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def report(title: str, rows: Sequence[Mapping[str, Any]], *packages: str) -> None:
    """Prints a title with hardware and versions, the rows as a table, and all of it as one line of JSON."""
    about = {"processor": processor(), "cores": all_cores(), "python": platform.python_version(), **versions(*packages)}
    print(f"\n{title}")
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        texts = (
            text.ljust(width) if not index else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(texts))
    print(json.dumps({"title": title, **about, "rows": list(rows)}), flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
