"""Where a run stands, beside its arrays: a part of each checkpoint."""

import dataclasses
import hashlib
from dataclasses import replace

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Position:
    """The steps taken, the batch that comes next, and what has been decided on the way."""

    step: int = 0
    epoch: int = 0  # of the next batch; of data that comes in parts of an epoch, the number of the part
    batch: int = 0  # its index there
    examples: str = ""  # a digest of the ids of all examples so far, in order
    best_score: float | None = None  # of all evaluations so far; higher is better
    evaluations_since_best: int = 0
    rollbacks: int = 0  # times that the run went back to a checkpoint
    stopped_early: bool = False

    def is_last(self, total_steps: int) -> bool:
        """Whether no step is to follow."""
        return self.stopped_early or self.step >= total_steps

    def after(self, examples: Int[np.ndarray, " N"], following: tuple[int, int]) -> "Position":
        """One step further, by a batch of these examples; `following` are epoch and index of the batch behind it."""
        digest = hashlib.sha256(self.examples.encode() + np.asarray(examples, "<i8").tobytes()).hexdigest()[:16]
        return replace(self, step=self.step + 1, epoch=following[0], batch=following[1], examples=digest)

    def judged(self, score: float, patience: int | None) -> "Position":
        """The position after an evaluation; the run stops early after `patience` of them without a better score."""
        if self.best_score is None or score > self.best_score:
            return replace(self, best_score=score, evaluations_since_best=0)
        since = self.evaluations_since_best + 1
        return replace(self, evaluations_since_best=since, stopped_early=patience is not None and since >= patience)

    def back_from(self, bad: "Position") -> "Position":
        """The position of a checkpoint, this one, to go on from behind the data that led to a bad step."""
        return replace(self, epoch=bad.epoch, batch=bad.batch, rollbacks=bad.rollbacks + 1)
