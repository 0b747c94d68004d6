"""What is measured of a run between its steps, and told to its logs and to whoever watches."""

import functools
import time
from contextlib import ExitStack, closing
from typing import Any

import jax

from transformer_jax import accelerators, processes
from transformer_jax.runs import RunFolder
from transformer_jax.training import evaluation, planning
from transformer_jax.training.data import Data
from transformer_jax.training.incidents import Incidents
from transformer_jax.training.metrics import MetricsLog, ProgressReport, score_of
from transformer_jax.training.position import Position
from transformer_jax.training.step import StepReport, Trainer, TrainState
from transformer_jax.translation import Translator


class Observer:
    """Measures on every process; the coordinator alone writes and shows. A context manager."""

    def __init__(self, folder: RunFolder, data: Data, trainer: Trainer, position: Position) -> None:
        """Opens the logs of a run that stands at `position`; what they say of later steps is dropped."""
        self.experiment, self.data, self.trainer = trainer.experiment, data, trainer
        self._translator: Translator | None = None
        self._logged_at = time.monotonic()
        self._open = ExitStack()
        self._log: MetricsLog | None = None
        self._progress: ProgressReport | None = None
        self._incidents: Incidents | None = None
        if processes.is_coordinator():
            tensorboard = folder.tensorboard if self.experiment.logging.tensorboard else None
            self._log = self._open.enter_context(
                MetricsLog(folder.metrics, folder.timings, tensorboard, step=position.step)
            )
            self._progress = self._open.enter_context(ProgressReport(trainer.total_steps, position.step))
            self._incidents = Incidents(folder.incidents, position)

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.close()

    def advance(self, step: int) -> None:
        """Tells that `step` steps are done."""
        if self._progress is not None:
            self._progress.advance(step)

    def say(self, line: str) -> None:
        """Shows a line of text."""
        if self._progress is not None:
            self._progress.write(line)

    def record(self, position: Position, what: str, **details: Any) -> None:
        """Puts something that happened at a position on record."""
        if self._incidents is not None:
            self._incidents.add(position, what, **details)

    def skipped(self, position: Position, examples: list[int], told: StepReport) -> None:
        """Tells of a step that was not made, and on which examples."""
        self.record(
            position, "skipped step", loss=told.loss, gradient_norm=told.gradient_norm, examples=sorted(examples)
        )
        self.say(
            f"step {position.step:,}: skipped: loss {told.loss:.4g}, gradient norm {told.gradient_norm:.4g}; "
            "its examples are in incidents.jsonl"
        )

    def saved(self, step: int, seconds: float) -> None:
        """Tells how long a step waited for its checkpoint to be taken."""
        if self._log is not None:
            self._log.write(step, {}, {"save_seconds": seconds})
        self._logged_at += seconds

    def write_metrics(self, state: TrainState, position: Position) -> TrainState:
        """Writes the means since the last time, and starts the sums anew."""
        progress, health = jax.device_get((state.progress, state.health))
        now = time.monotonic()
        tokens, steps = float(progress.sums.tokens), int(progress.steps)
        updates = position.step - int(health.skipped)
        loss, rate = float(progress.sums.loss) / max(tokens, 1.0), float(self.trainer.schedule(max(updates - 1, 0)))
        metrics = {
            "train/loss": loss,
            "train/log_loss": float(progress.sums.log_loss) / max(tokens, 1.0),
            "train/gradient_norm": float(progress.gradient_norm) / max(steps, 1),
            "train/learning_rate": rate,
            "train/target_tokens": tokens,
            "train/skipped_steps": int(progress.skipped),
            "train/examples": position.examples,
        }
        seconds, self._logged_at = now - self._logged_at, now
        timings = {"target_tokens_per_second": tokens / seconds}
        if self._peak_steps is not None:
            timings["peak_share"] = (steps + int(progress.skipped)) / seconds / self._peak_steps
        if self._log is not None and self._progress is not None:
            self._log.write(position.step, metrics, timings)
            self._progress.report(loss=loss, learning_rate=rate, **timings)
        return self.trainer.reset_progress(state)

    @functools.cached_property
    def _peak_steps(self) -> float | None:
        """Steps a second at which the devices would reach their peak; None where that is not known."""
        devices = self.trainer.mesh.devices
        peak = accelerators.peak_operations(devices.flat[0].device_kind)
        return None if peak is None else peak * devices.size / planning.step_operations(self.experiment)

    def evaluate(self, state: TrainState, step: int) -> dict[str, float] | None:
        """Loss and scores on the validation split; None where there is none."""
        batches, pairs = self.data.validation_batches, self.data.splits.validation
        if batches is None or pairs is None:
            return None
        started = time.monotonic()
        with closing(batches.one_epoch()) as epoch:
            sums = evaluation.evaluate_loss(self.trainer.eval_step, state.evaluated, epoch)
        objective, config = self.experiment.objective, self.experiment.evaluation
        metrics = evaluation.metrics_of(objective, sums, "validation", pairs)
        signatures: dict[str, str] = {}
        if objective.kind == "translation" and config.translations != 0:
            _, scores = evaluation.translate_and_score(
                self._translator_of(state),
                pairs,
                config.translations,
                bleu_tokenizer=config.bleu_tokenizer,
                edits=False,
            )
            metrics |= {
                "validation/bleu": scores.bleu,
                "validation/chrf": scores.chrf,
                "validation/exact_match": scores.exact_match,
            }
            signatures = {
                "validation/bleu_signature": scores.bleu_signature,
                "validation/chrf_signature": scores.chrf_signature,
            }
        now = time.monotonic()
        if self._log is not None:
            self._log.write(step, metrics | signatures, {"evaluation_seconds": now - started})
        self._logged_at += now - started
        shown = ", ".join(f"{name.removeprefix('validation/')} {value:.4g}" for name, value in metrics.items())
        self.say(f"step {step:,}: validation {shown}")
        return metrics

    def judge(self, position: Position, measured: dict[str, float] | None) -> Position:
        """Counts evaluations without a better score, and stops the run after `training.patience` of them."""
        if measured is None:
            return position
        config = self.experiment
        judged = position.judged(score_of(config.evaluation.metric)(measured), config.training.patience)
        if judged.stopped_early:
            since = judged.evaluations_since_best
            self.say(f"step {position.step:,}: no better {config.evaluation.metric} in {since} evaluations")
        return judged

    def _translator_of(self, state: TrainState) -> Translator:
        if self._translator is None:
            self._translator = Translator(
                self.experiment.model,
                state.evaluated,
                self.data.tokenizers,
                self.experiment.decoding,
                self.trainer.mesh,
                longest=self.experiment.batch.source_length,
            )
        else:
            self._translator = self._translator.with_parameters(state.evaluated)
        return self._translator
