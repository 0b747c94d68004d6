"""The record of bad steps: which were skipped, on which examples, and when the run went back."""

import json
from pathlib import Path
from typing import Any

from transformer_jax.files import write_atomically
from transformer_jax.training.metrics import read
from transformer_jax.training.position import Position


class Incidents:
    """incidents.jsonl of a run folder: an object a line, in the order in which things happened.

    Each line has `rollbacks`, how often the run had gone back by then, and `step`: a run that goes on from a checkpoint
    drops what happened after it, since it will happen again.
    """

    def __init__(self, path: Path, position: Position) -> None:
        """Opens the record of a run that stands at `position`.

        Raises:
            InputError: when a line of it is broken.
        """
        self._path = path
        self._lines: list[dict[str, Any]] = []
        if path.exists():
            here = (position.rollbacks, position.step)
            lines = read(path)
            self._lines = [line for line in lines if (line["rollbacks"], line["step"]) <= here]
            if self._lines != lines:
                self._write()

    def add(self, position: Position, what: str, **details: Any) -> None:
        """Records what happened at a position; the line is on disk when this returns."""
        self._lines.append({"step": position.step, "rollbacks": position.rollbacks, "what": what, **details})
        self._write()

    def _write(self) -> None:
        write_atomically(self._path, "".join(f"{json.dumps(line)}\n" for line in self._lines))
