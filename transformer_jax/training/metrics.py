"""What a run tells: MetricsLog writes numbers to files, ProgressReport shows them to whoever watches."""

import contextlib
import io
import json
import math
import operator
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

from transformer_jax import processes
from transformer_jax.errors import InputError


class MetricsLog:
    """Appends the numbers of a run, a JSON object a line, and each line is on disk when `write` returns.

    Two files keep two kinds apart: `metrics` what is the same to the bit whenever the run is repeated, `timings` what
    the clock says. Both go to TensorBoard too where a folder is given. A context manager.
    """

    def __init__(self, metrics: Path, timings: Path, tensorboard: Path | None = None, *, step: int = 0) -> None:
        """Opens the logs of a run that stands at `step`; what they say of later steps is dropped.

        Raises:
            InputError: when a line of a log is broken.
        """
        self._files = contextlib.ExitStack()
        cut_back(metrics, step)
        cut_back(timings, step)
        self._metrics = self._files.enter_context(metrics.open("a", encoding="utf-8"))
        self._timings = self._files.enter_context(timings.open("a", encoding="utf-8"))
        self._events = None
        if tensorboard is not None:
            # Events from the purge step on, as an interrupted session left them, are not shown.
            self._events = SummaryWriter(str(tensorboard), purge_step=step + 1)
            self._files.callback(self._events.close)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._files.close()

    def write(self, step: int, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Appends a line to each file; values are numbers, arrays of one number, and text.

        Lines come in the order of their steps. An empty mapping writes no line.
        """
        for file, values in ((self._metrics, metrics), (self._timings, timings)):
            if values:
                # Floats are written by repr, which reads back as the same float; numpy and jax values by their item.
                line = json.dumps({"step": step, **values}, ensure_ascii=False, default=operator.methodcaller("item"))
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        if self._events is not None:
            for name, value in {**metrics, **timings}.items():
                if not isinstance(value, str):
                    self._events.add_scalar(name, float(value), step)


def say(line: str) -> None:
    """A line for whoever watches, on standard error, once for all processes."""
    if processes.is_coordinator():
        print(line, file=sys.stderr, flush=True)


def score_of(metric: str) -> Callable[[Mapping[str, float]], float]:
    """What makes one evaluation better than another by "loss", "bleu" or "chrf": higher is better, NaN is worst."""

    def score(metrics: Mapping[str, float]) -> float:
        value = metrics[f"validation/{metric}"]
        if math.isnan(value):
            return -math.inf
        return -value if metric == "loss" else value

    return score


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a crash cut short is left out.

    Raises:
        InputError: when another line is broken.
    """
    return [values for values, _ in _lines(path)]


def cut_back(path: Path, step: int) -> None:
    """Drops the lines of later steps, and a last line cut short, from a log; the file may be missing.

    One truncation does it, so that a crash leaves the log either as it was or cut back.

    Raises:
        InputError: when another line is broken.
    """
    if not path.exists():
        return
    keep = 0
    for values, end in _lines(path):
        if values["step"] > step:
            break
        keep = end
    os.truncate(path, keep)


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """The values of each whole line and the byte at which it ends."""
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                yield json.loads(line), end
            except ValueError as error:
                raise InputError(
                    f"{path}:{number}: is no line of JSON: {error}; restore the file or delete it"
                ) from None


class ProgressReport:
    """Shows how far a run is: a bar on a terminal, elsewhere a plain line for each report. A context manager."""

    def __init__(self, total: int, step: int = 0, stream: io.TextIOBase | None = None) -> None:
        """Starts at `step` of `total` steps; shows on standard error where no stream is given."""
        self._total, self._step, self._stream = total, step, stream or sys.stderr
        self._bar = (
            tqdm(total=total, initial=step, unit="step", dynamic_ncols=True, file=self._stream)
            if self._stream.isatty()
            else None
        )
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> "ProgressReport":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, step: int) -> None:
        """Tells that `step` steps are done."""
        self._step = step
        if self._first is None:  # the clock starts after the first step, whose compilation says nothing of the rest
            self._first = step, time.monotonic()
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def report(
        self, *, loss: float, learning_rate: float, target_tokens_per_second: float, peak_share: float | None = None
    ) -> None:
        """Shows the numbers of the step last told; padding is no token, the peak is that of the devices in bfloat16."""
        speed = f"{target_tokens_per_second:,.0f} target tokens/s"
        share = "" if peak_share is None else f", {peak_share:.1%} of the peak"
        numbers = f"loss {loss:.4f}, learning rate {learning_rate:.3g}, {speed}{share}"
        if self._bar is not None:
            self._bar.set_postfix_str(numbers)
        else:
            self.write(f"step {self._step:,}/{self._total:,}: {numbers}, {self._time_left()} left")

    def write(self, line: str) -> None:
        """Shows a line of text, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def _time_left(self) -> str:
        if self._first is None or self._first[0] == self._step:
            return "?"
        step, started = self._first
        seconds = (time.monotonic() - started) / (self._step - step) * (self._total - self._step)
        return str(tqdm.format_interval(seconds))
