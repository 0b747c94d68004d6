"""Checkpoints: what is read back is what was written, or it is not used.

A checkpoint is a folder named by its step. It holds items, each a tree of arrays ("parameters", "optimizer", ...), and
a manifest, by whose digests of files and fingerprints of leaves damage is found.
"""

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from transformer_jax import processes
from transformer_jax.errors import MISTAKE, InputError, first_line
from transformer_jax.training import manifest
from transformer_jax.training.fingerprints import Fingerprints, Items, Leaves, describe, difference, mismatch
from transformer_jax.training.manifest import DamageError, Manifest, Verdict
from transformer_jax.training.shelf import GoneError, Score, Shelf
from transformer_jax.training.storage import Storage

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Restored:
    """An intact checkpoint."""

    step: int
    items: Items
    position: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run folder: written in the background, the newest and the best kept. A context manager.

    Where a run has several processes, all of them call `save`, `wait` and `restore` in the same order.
    """

    def __init__(
        self,
        folder: Path,
        *,
        newest: int | None = None,
        best: int = 0,
        score: Score | None = None,
        scheduled: Callable[[int], bool] = lambda step: True,
        on_failure: Literal["stop", "go_on"] = "stop",
    ) -> None:
        """Keeps the `newest` of the `scheduled` steps (all where None), and the `best` by the highest `score`.

        Of steps off the schedule, which a signal asked for say, the newest alone is kept, until a later one is there.
        A save that fails, on a full disk say, raises; with "go_on" it is a warning, and the next save tries again.
        With many processes it ends them all: they could not agree on what to do next.
        """
        self.folder = folder
        self._shelf = Shelf(folder, newest=newest, best=best, score=score, scheduled=scheduled)
        self._on_failure = on_failure
        self._storage = Storage()
        self._saving: threading.Thread | None = None
        self._failure: str | None = None  # of the newest save
        self._tidy = False  # whether what dead processes left is gone

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._join()
        self._storage.close()
        if self._failure is not None:
            if exception[0] is None:
                raise self._could_not_save(self._failure)
            _log.warning("%s", self._what_failed(self._failure))

    def steps(self) -> list[int]:
        """The steps at which a checkpoint lies, oldest first."""
        return self._shelf.steps()

    def best_step(self) -> int | None:
        """The step of the highest score; None where nothing was measured, or there is no score."""
        ranked = self.ranked()
        return ranked[-1] if ranked else None

    def ranked(self) -> list[int]:
        """The steps at which something was measured, the highest score last; none where there is no score."""
        return self._shelf.ranked(self.steps())

    def metrics(self, step: int) -> dict[str, float] | None:
        """What was measured at a step; None where nothing was, or where it can no longer be read."""
        return self._shelf.metrics(step)

    def leaves(self, step: int) -> Leaves:
        """Dtype, shape and fingerprint of every leaf of a checkpoint, as its manifest has them.

        Raises:
            DamageError: when the manifest is missing or not what was written.
        """
        return manifest.read(self._shelf.place(step)).leaves

    def aside(self) -> list[str]:
        """The names of the damaged checkpoints that have been set aside."""
        return self._shelf.aside()

    def save(
        self, step: int, items: Items, position: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> float:
        """Starts to write a checkpoint; returns as soon as the arrays may change again.

        Waits for the save before this one, if that is still going on.

        Returns:
            the seconds that the caller was held up.

        Raises:
            InputError: when this save, or the one before it, could not be written; what was there is intact.
        """
        began = time.monotonic()
        self.settle()
        if processes.agree(self._shelf.place(step).exists()):
            raise InputError(f"{self._shelf.place(step)}: there is a checkpoint of this step already")
        contents = Manifest(dict(position), None if metrics is None else dict(metrics), {}, {})
        try:
            if processes.is_coordinator() and not self._tidy:
                self._shelf.remove_leftovers()
                self._tidy = True
            prints = Fingerprints(items)
            self._storage.start_writing(self._shelf.place_to_save(step), items)
        except Exception as error:  # Orbax raises whatever its storage raised
            self._fail(error)
            self._recover()
            self._pass_over_failure()
        else:
            self._saving = threading.Thread(target=self._finish, args=(step, contents, prints), name=f"save {step}")
            self._saving.start()
        return time.monotonic() - began

    def wait(self) -> None:
        """Returns when the newest save is on disk.

        Raises:
            InputError: when it could not be written, whatever is to be done on a failure: it is the last.
        """
        self._join()
        failure = processes.agree(self._failure)
        if failure is not None:
            self._recover()
            raise self._could_not_save(failure)

    def restore(
        self,
        abstract: Items,
        steps: Sequence[int] | None = None,
        *,
        best_first: bool = False,
        set_aside: bool = False,
    ) -> Restored | None:
        """The first intact checkpoint, or None if there is none at all.

        Damaged ones are skipped with a warning. One that another process removes meanwhile is not damaged.

        Args:
            abstract: the items to read, as shapes, dtypes and shardings.
            steps: which to try, in this order; None is all there are, the newest first.
            best_first: of all, tries the best before the newest.
            set_aside: renames the damaged ones, so that a run that goes on from an older one can save them again.

        Raises:
            InputError: when a checkpoint is of another model or format, or when none is intact; nothing is renamed.
        """
        self.settle()
        damaged: dict[int, str] = {}
        gone: set[int] = set()
        while (step := processes.agree(self._next(steps, best_first, {*damaged, *gone}))) is not None:
            try:
                restored = self._read(step, abstract)
            except GoneError:
                gone.add(step)
            except DamageError as damage:
                damaged[step] = str(damage)
            else:
                self._tell(damaged, set_aside)
                return restored
        if damaged:
            reasons = "; ".join(f"{step}: {damage}" for step, damage in damaged.items())
            raise InputError(f"{self.folder}: no intact checkpoint among {list(damaged)}; put back a copy ({reasons})")
        self._tell({}, set_aside)
        if gone:
            raise InputError(f"{self.folder}: removed while it was read: checkpoint {', '.join(map(str, gone))}")
        return None

    def discard_after(self, step: int) -> None:
        """Removes the checkpoints of later steps: a run that goes on from this one makes its own."""
        if processes.is_coordinator():
            self._shelf.remove([later for later in self.steps() if later > step])
        processes.barrier("discarded")

    def verify(self) -> Iterator[Verdict]:
        """Reads every checkpoint, the oldest first, on one device; renames nothing.

        Raises:
            InputError: when a checkpoint is of another format.
        """
        for step in self.steps():
            contents, damage = None, None
            try:
                contents = self._check(step)
                with self._shelf.unless_gone(step), manifest.damage_shown(contents):
                    items = self._storage.on_one_device(self._shelf.place(step), contents.leaves)
                self._load(step, contents, items)
            except GoneError:
                continue  # removed meanwhile by a run
            except DamageError as error:
                damage = str(error)
            yield Verdict(step, damage, has_digests=contents is None or contents.files is not None)

    # Saving.

    def _finish(self, step: int, contents: Manifest, prints: Fingerprints) -> None:
        """The part of a save behind the caller's back: it gets its manifest, and last its name."""
        try:
            self._storage.finish_writing()
            if processes.is_coordinator():
                place = self._shelf.place_to_save(step)
                files = manifest.digest_files(place)
                manifest.write(place, dataclasses.replace(contents, leaves=prints.result(), files=files))
                self._shelf.put(step)
                self._shelf.prune()
        except Exception as error:
            self._fail(error)

    def _join(self) -> None:
        if self._saving is not None:
            self._saving.join()
            self._saving = None

    def settle(self) -> None:
        """Waits for the save that is going on, and passes over its failure where that is wanted.

        Raises:
            InputError: when it could not be written, and that is not to be passed over.
        """
        self._join()
        self._failure = processes.agree(self._failure)
        if self._failure is not None:
            self._recover()
            self._pass_over_failure()
        self._failure = None

    def _fail(self, error: Exception) -> None:
        self._failure = first_line(error)
        if jax.process_count() > 1:  # the others may wait within Orbax for this one
            processes.leave(f"error: {self._what_failed(self._failure)}: make room or mend the folder", MISTAKE)
        if self._on_failure == "go_on":
            _log.warning("%s; the run goes on", self._what_failed(self._failure))

    def _pass_over_failure(self) -> None:
        if self._failure is not None and self._on_failure == "stop":
            raise self._could_not_save(self._failure)

    def _recover(self) -> None:
        """Makes room for the next try."""
        self._storage.start_anew()
        if processes.is_coordinator():
            with contextlib.suppress(OSError):
                self._shelf.remove_leftovers()

    def _what_failed(self, failure: str) -> str:
        return f"{self.folder}: the newest checkpoint could not be saved: {failure}; older ones are intact"

    def _could_not_save(self, failure: str) -> InputError:
        self._failure = None  # told once
        return InputError(
            f"{self._what_failed(failure)}: make room or mend the folder, then run the same command again"
        )

    # Reading.

    def _next(self, steps: Sequence[int] | None, best_first: bool, tried: set[int]) -> int | None:
        """The next step to try; looks anew at what is there, since a run may have pruned and saved meanwhile."""
        if steps is None:
            steps = self.steps()[::-1]
            if best_first and (best := self.best_step()) is not None:
                steps = [best, *steps]
        return next((step for step in steps if step not in tried), None)

    def _read(self, step: int, abstract: Items) -> Restored:
        """A checkpoint, if it is intact.

        Raises:
            DamageError: naming the piece.
            GoneError: when it is not there, or no longer.
            InputError: when it is of another model or format.
        """
        said = processes.agree(self._examined(step, abstract))
        for kind in (DamageError, GoneError, InputError):
            if kind.__name__ in said:
                raise kind(said[kind.__name__])
        with self._shelf.unless_gone(step):
            contents = manifest.read(self._shelf.place(step))
        return self._load(step, contents, abstract)

    def _examined(self, step: int, abstract: Items) -> dict[str, str]:
        """The coordinator's look at the files: the kind of error and its text, or nothing."""
        if processes.is_coordinator():
            try:
                contents = self._check(step)
                if (why := mismatch(abstract, contents.leaves)) is not None:
                    old = "; an earlier version wrote it: its runs are translated with, not gone on with"
                    raise InputError(f"{self._shelf.place(step)}: {why}{old if contents.files is None else ''}")
            except (DamageError, GoneError, InputError) as error:
                return {type(error).__name__: str(error)}
        return {}

    def _check(self, step: int) -> Manifest:
        """The manifest of a checkpoint whose files are all there and what they were."""
        folder = self._shelf.place(step)
        with self._shelf.unless_gone(step):
            contents = manifest.read(folder)
            manifest.check_files(folder, contents.files or {})
        return contents

    def _load(self, step: int, contents: Manifest, abstract: Items) -> Restored:
        """Reads the arrays, and compares their fingerprints."""
        with self._shelf.unless_gone(step), manifest.damage_shown(contents):
            items = self._storage.read(self._shelf.place(step), abstract)
        if (leaf := difference(contents.leaves, describe(items))) is not None:
            raise DamageError(f"{leaf} is not what was saved")
        return Restored(step, items, contents.position)

    def _tell(self, damaged: Mapping[int, str], set_aside: bool) -> None:
        """Names what is damaged, and where it is kept where it was in the way; and what a process did not finish."""
        if set_aside and processes.is_coordinator():
            for step in self._shelf.unfinished():
                _log.warning("%s: checkpoint %d was not finished and is skipped", self.folder, step)
        for step, damage in damaged.items():
            if not processes.is_coordinator():
                continue
            if not set_aside:
                _log.warning("%s: checkpoint %d is damaged and skipped: %s", self.folder, step, damage)
            else:
                kept = self._shelf.set_aside(step)
                _log.warning("%s: checkpoint %d is damaged: %s; kept as %s", self.folder, step, damage, kept)
