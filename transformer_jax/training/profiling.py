"""A trace of a few steps, for TensorBoard's profile plugin, XProf or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

from transformer_jax.training.metrics import say

_Result = TypeVar("_Result")

EVEN = 3  # steps of a session before the trace: the first compiles
STEPS = 3  # traced


class Profile:
    """Runs the steps of a session; traces a few of them where a folder is given. A context manager."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._done, self._tracing = folder, 0, False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._tracing:
            self._stop()
        elif self._folder is not None:
            say(f"--profile: the run ended before its steps {EVEN + 1} to {EVEN + STEPS}; there is no trace")

    def run(self, step: Callable[[], _Result], number: int) -> _Result:
        """The result of the step with this number."""
        if self._folder is None:
            return step()
        if self._done == EVEN:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every call of Python: ten times the trace, and slower steps
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            result = step()
        self._done += 1
        if self._done == EVEN + STEPS:
            jax.block_until_ready(result)
            self._stop()
        return result

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        say(f"--profile: a trace of {self._done - EVEN} steps: {self._folder}")
        self._folder, self._tracing = None, False
