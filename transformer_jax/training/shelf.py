"""The folders of a run's checkpoints: which there are, which stay, and how one leaves; none is ever there by half.

N is the checkpoint of step N. What begins with saving- or deleting- was left by a process that died; damaged-N was
set aside.
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from transformer_jax.errors import InputError
from transformer_jax.files import to_disk
from transformer_jax.training import manifest
from transformer_jax.training.manifest import DamageError

Score: TypeAlias = Callable[[Mapping[str, float]], float]  # of metrics; higher is better

_STEP = re.compile(r"0|[1-9]\d*")
_UNFINISHED = re.compile(r"(?:saving-)?(\d+)(?:\.orbax-checkpoint-tmp)?")  # without saving-, of format 1

_log = logging.getLogger(__name__)


class GoneError(Exception):
    """A checkpoint is not there, or no longer: a run that goes on has removed it."""


class Shelf:
    """Where checkpoints stand."""

    def __init__(
        self,
        folder: Path,
        *,
        newest: int | None,
        best: int,
        score: Score | None,
        scheduled: Callable[[int], bool] = lambda step: True,
    ) -> None:
        """Keeps the `newest` of the `scheduled` steps (all where None), the newest of all, and the `best` by `score`.

        What is kept of the schedule does not depend on what else was saved, and so not on interruptions.
        """
        self.folder = folder
        self._newest, self._best, self._score, self._scheduled = newest, best, score, scheduled

    def steps(self) -> list[int]:
        """The steps at which a checkpoint lies, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if _STEP.fullmatch(path.name))

    def place(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / str(step)

    def place_to_save(self, step: int) -> Path:
        """The folder of a checkpoint until it is whole."""
        return self.folder / f"saving-{step}"

    def put(self, step: int) -> None:
        """Gives a checkpoint that is whole its name."""
        self.place_to_save(step).rename(self.place(step))
        to_disk(self.folder)

    @contextlib.contextmanager
    def unless_gone(self, step: int) -> Iterator[None]:
        """What goes wrong with a checkpoint that is no longer there is not damage.

        Raises:
            GoneError: instead of any other error, where it is not there.
        """
        try:
            yield
        except Exception as error:
            if not self.place(step).exists():
                raise GoneError(step) from error
            raise

    def metrics(self, step: int) -> dict[str, float] | None:
        """What was measured at a step; None where nothing was, or where it can no longer be read."""
        try:
            return manifest.read(self.place(step)).metrics
        except (DamageError, InputError):
            return None

    def ranked(self, steps: Sequence[int]) -> list[int]:
        """Those of some steps that were measured, the best last; of equals, the newest."""
        if self._score is None:
            return []
        scores = {step: self._score(metrics) for step in steps if (metrics := self.metrics(step))}
        return sorted(scores, key=lambda step: (scores[step], step))

    def prune(self) -> None:
        """Removes what need not be kept. Only complete checkpoints count as kept, and only those are removed.

        What cannot be removed is a warning: nothing is lost by it.
        """
        if self._newest is None:
            return
        complete = [step for step in self.steps() if manifest.is_complete(self.place(step))]
        ranked = self.ranked(complete)
        on_schedule = [step for step in complete if self._scheduled(step)]
        kept = {*complete[-1:], *on_schedule[-self._newest :], *ranked[len(ranked) - min(self._best, len(ranked)) :]}
        self.remove([step for step in complete if step not in kept])

    def remove(self, steps: Sequence[int]) -> None:
        """Takes the names away first: whoever reads a checkpoint then finds it gone, not damaged."""
        for step in steps:
            try:
                away = self.place(step).rename(self.folder / f"deleting-{step}")
            except OSError as error:
                _log.warning("%s: cannot be removed: %s", self.place(step), error.strerror)
            else:
                shutil.rmtree(away, ignore_errors=True)

    def unfinished(self) -> list[int]:
        """The steps that processes were saving when they died, oldest first."""
        return sorted({int(match[1]) for path, match in self._leftovers() if match is not None})

    def remove_leftovers(self) -> None:
        """Removes what processes that died were saving or deleting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, _ in self._leftovers():
            shutil.rmtree(path, ignore_errors=True)

    def _leftovers(self) -> Iterator[tuple[Path, re.Match[str] | None]]:
        """Folders that are no checkpoints, with the match of the step where they were to become one."""
        for path in sorted(self.folder.glob("*-*")):
            match = _UNFINISHED.fullmatch(path.name)
            if match is not None or path.name.startswith("deleting-"):
                yield path, match

    def set_aside(self, step: int) -> str:
        """Renames a damaged checkpoint; returns the name under which it is kept.

        Raises:
            InputError: when the folder cannot be written to.
        """
        kept, number = self.folder / f"damaged-{step}", 1
        while kept.exists():
            number += 1
            kept = self.folder / f"damaged-{step}-{number}"
        try:
            self.place(step).rename(kept)
        except OSError as error:
            raise InputError(f"{self.place(step)}: damaged, and cannot be set aside: {error.strerror}") from None
        return kept.name

    def aside(self) -> list[str]:
        """The names of the damaged checkpoints that have been set aside."""
        return sorted(path.name for path in self.folder.glob("damaged-*"))
