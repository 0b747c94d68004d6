"""The run: load or restore, iterate, log, evaluate, save, report."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from transformer_jax import plots, runs, sharding
from transformer_jax.config import Experiment
from transformer_jax.data.batch import Batch
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.sources import Pairs, load_pairs
from transformer_jax.data.tokenizer import Tokenizers, train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder
from transformer_jax.training import evaluation
from transformer_jax.training.checkpoints import Checkpoints, Items
from transformer_jax.training.interruption import Interruption
from transformer_jax.training.metrics import MetricsLog, ProgressReport, score_of
from transformer_jax.training.step import Trainer, TrainState
from transformer_jax.translation import Translator, read_parameters

SAMPLES = 5  # translations shown at the end


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run stands, beside its arrays: a part of each checkpoint."""

    step: int = 0
    best_score: float | None = None  # of all evaluations so far; higher is better
    evaluations_since_best: int = 0
    stopped_early: bool = False


@dataclasses.dataclass(frozen=True)
class Data:
    """The pairs of each split, the tokenizers, and the batches of training and validation."""

    train: Pairs
    validation: Pairs | None
    test: Pairs | None
    tokenizers: Tokenizers
    training_batches: Pipeline
    validation_batches: Pipeline | None

    def digests(self) -> dict[str, str]:
        """What the data is, whatever its paths are."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        digests = {f"{name} data": pairs.digest for name, pairs in splits.items() if pairs is not None}
        return {**digests, "tokenizer": self.tokenizers.digest}


def train(experiment: Experiment, workdir: str | Path) -> int:
    """Trains an experiment in a run folder, from its newest checkpoint on; returns the exit code.

    Raises:
        InputError: on whatever the user can mend, before anything is compiled where that can be known.
    """
    mesh = sharding.make_mesh(experiment.mesh)
    say(sharding.describe_devices(mesh))
    with runs.lock(workdir), Interruption() as interruption:
        folder = runs.start(workdir, experiment)
        data = load_data(experiment, folder, mesh)
        runs.record_session(
            folder,
            experiment,
            platform_name=mesh.devices.flat[0].platform,
            devices=[str(device) for device in mesh.devices.flat],
            digests=data.digests(),
        )
        config = experiment.training
        total_steps = config.steps or data.training_batches.total_steps(config.epochs or 0)
        trainer = Trainer(experiment, mesh, total_steps)
        with checkpoints_of(folder, experiment) as checkpoints:
            state, position = _restore(trainer, checkpoints)
            if _finished(folder, position, total_steps):
                say(f"{folder.path}: finished at step {position.step:,}; nothing to do. {_results(folder)}")
                return 0
            run = _Run(experiment, folder, data, trainer, checkpoints, total_steps)
            position = run.go(state, position, interruption)
        if interruption.signal is not None:
            say(f"{interruption.signal.name}: saved step {position.step:,}; the same command goes on from there")
            return interruption.exit_code
        report(experiment, folder, data, mesh)
        return 0


def say(line: str) -> None:
    """A line for whoever watches, on standard error."""
    print(line, file=sys.stderr, flush=True)


def load_data(experiment: Experiment, folder: RunFolder, mesh: jax.sharding.Mesh) -> Data:
    """Pairs, tokenizers (trained on the training pairs where the run has none yet), and batches."""
    train, validation, test = (load_pairs(experiment.data, split) for split in ("train", "validation", "test"))
    if train is None:
        raise InputError("data.train: the experiment has no training pairs")
    if validation is None and (experiment.training.patience is not None or experiment.evaluation.metric != "loss"):
        raise InputError("data.validation: early stopping and the best checkpoint need validation pairs")
    if folder.tokenizer.exists():
        tokenizers = Tokenizers.load(folder.tokenizer)
    else:
        tokenizers = train_tokenizers(experiment.tokenizer, experiment.model, train.sources, train.targets)
        tokenizers.save(folder.tokenizer)

    def batches(pairs: Pairs) -> Pipeline:
        return Pipeline(pairs, tokenizers, experiment.batch, mesh, experiment.seed, folder.cache)

    training, evaluated = batches(train), None if validation is None else batches(validation)
    for name, pipeline in (("training", training), ("validation", evaluated)):
        if pipeline is not None:
            dropped = "".join(
                f", {count:,} dropped with {reason}" for reason, count in pipeline.dropped.items() if count
            )
            say(f"{name}: {pipeline.kept:,} of {pipeline.total:,} pairs{dropped}")
    return Data(train, validation, test, tokenizers, training, evaluated)


def checkpoints_of(folder: RunFolder, experiment: Experiment) -> Checkpoints:
    """The checkpoints of a run, kept as its experiment says."""
    config = experiment.checkpoints
    score = score_of(experiment.evaluation.metric)
    return Checkpoints(folder.checkpoints, newest=config.newest, best=config.best, score=score)


def items_of(state: TrainState) -> Items:
    """The items of a checkpoint: parameters, optimizer, moving average where there is one, and sums."""
    items = {"parameters": state.params, "optimizer": state.optimizer, "progress": state.progress}
    return items if state.average is None else {**items, "average": state.average}


def _restore(trainer: Trainer, checkpoints: Checkpoints) -> tuple[TrainState, Position]:
    restored = checkpoints.restore(items_of(trainer.abstract_state))
    if restored is None:
        return trainer.new_state(), Position()
    position = Position(**restored.position)
    items = restored.items
    state = TrainState(
        step=jax.device_put(jax.numpy.int32(position.step), trainer.state_sharding.step),
        params=items["parameters"],
        optimizer=items["optimizer"],
        average=items.get("average"),
        progress=items["progress"],
    )
    return state, position


def _finished(folder: RunFolder, position: Position, total_steps: int) -> bool:
    return (position.step >= total_steps or position.stopped_early) and folder.results.exists()


def _results(folder: RunFolder) -> str:
    results: dict[str, Any] = json.loads(folder.results.read_text(encoding="utf-8"))
    return f"BLEU {results['bleu']:.2f} on {results['split']}" if "bleu" in results else ""


class _Run:
    """One session of a run, from a state to the end or to an interruption."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        data: Data,
        trainer: Trainer,
        checkpoints: Checkpoints,
        total_steps: int,
    ) -> None:
        self.experiment, self.folder, self.data, self.trainer = experiment, folder, data, trainer
        self.checkpoints, self.total_steps = checkpoints, total_steps
        self.translator: Translator | None = None
        self.logged_at = time.monotonic()

    def go(self, state: TrainState, position: Position, interruption: Interruption) -> Position:
        """Steps until the last one, until evaluations no longer get better, or until a signal."""
        if position.step >= self.total_steps or position.stopped_early:
            return position
        tensorboard = self.folder.tensorboard if self.experiment.logging.tensorboard else None
        with ExitStack() as stack:
            self.log = stack.enter_context(
                MetricsLog(self.folder.metrics, self.folder.timings, tensorboard, step=position.step)
            )
            self.progress = stack.enter_context(ProgressReport(self.total_steps, position.step))
            batches = stack.enter_context(closing(self.data.training_batches.batches(position.step)))
            position = self._iterate(state, position, batches, interruption)
            self.checkpoints.wait()
        return position

    def _iterate(
        self, state: TrainState, position: Position, batches: Iterator[Batch], interruption: Interruption
    ) -> Position:
        config = self.experiment
        while position.step < self.total_steps and not position.stopped_early:
            state = self.trainer.train_step(state, next(batches))
            position = replace(position, step=position.step + 1)
            self.progress.advance(position.step)
            last = position.step == self.total_steps
            if position.step % config.logging.every == 0 or last:
                state = self._write_metrics(state, position.step)
            measured = None
            if position.step % config.evaluation.every == 0 or last:
                measured = self._evaluate(state, position.step)
                position = self._judge(position, measured)
            stop = interruption.signal is not None
            due = position.step % config.checkpoints.every == 0
            if due or measured is not None or stop:
                self.checkpoints.save(position.step, items_of(state), dataclasses.asdict(position), measured or None)
            if stop:
                break
        return position

    def _write_metrics(self, state: TrainState, step: int) -> TrainState:
        progress = jax.device_get(state.progress)
        now = time.monotonic()
        tokens, steps = float(progress.sums.tokens), int(progress.steps)
        metrics = {
            "train/loss": float(progress.sums.loss) / tokens,
            "train/log_loss": float(progress.sums.log_loss) / tokens,
            "train/gradient_norm": float(progress.gradient_norm) / steps,
            "train/learning_rate": float(self.trainer.schedule(step - 1)),
            "train/target_tokens": tokens,
        }
        speed = tokens / (now - self.logged_at)
        self.logged_at = now
        self.log.write(step, metrics, {"target_tokens_per_second": speed})
        self.progress.report(
            loss=metrics["train/loss"], learning_rate=metrics["train/learning_rate"], tokens_per_second=speed
        )
        return self.trainer.reset_progress(state)

    def _evaluate(self, state: TrainState, step: int) -> dict[str, float]:
        """Loss and scores on the validation split; empty where there is none."""
        batches, pairs = self.data.validation_batches, self.data.validation
        if batches is None or pairs is None:
            return {}
        started = time.monotonic()
        with closing(batches.one_epoch()) as epoch:
            sums = evaluation.evaluate_loss(self.trainer.eval_step, state.evaluated, epoch)
        metrics = evaluation.loss_metrics(sums, "validation")
        config = self.experiment.evaluation
        if config.translations != 0:
            _, scores = evaluation.translate_and_score(
                self._translator(state), pairs, config.translations, bleu_tokenizer=config.bleu_tokenizer
            )
            metrics |= {
                "validation/bleu": scores.bleu,
                "validation/chrf": scores.chrf,
                "validation/exact_match": scores.exact_match,
            }
        now = time.monotonic()
        self.log.write(step, metrics, {"evaluation_seconds": now - started})
        self.logged_at += now - started
        shown = ", ".join(f"{name.removeprefix('validation/')} {value:.4g}" for name, value in metrics.items())
        self.progress.write(f"step {step:,}: validation {shown}")
        return metrics

    def _translator(self, state: TrainState) -> Translator:
        if self.translator is None:
            experiment, mesh = self.experiment, self.trainer.mesh
            self.translator = Translator(
                experiment.model, state.evaluated, self.data.tokenizers, experiment.decoding, mesh
            )
        else:
            self.translator = self.translator.with_parameters(state.evaluated)
        return self.translator

    def _judge(self, position: Position, measured: dict[str, float]) -> Position:
        """Counts evaluations without a better score, and stops the run after `training.patience` of them."""
        if not measured:
            return position
        score = score_of(self.experiment.evaluation.metric)(measured)
        if position.best_score is None or score > position.best_score:
            return replace(position, best_score=score, evaluations_since_best=0)
        since, patience = position.evaluations_since_best + 1, self.experiment.training.patience
        stop = patience is not None and since >= patience
        if stop:
            self.progress.write(
                f"step {position.step:,}: no better {self.experiment.evaluation.metric} in {since} evaluations"
            )
        return replace(position, evaluations_since_best=since, stopped_early=stop)


def report(experiment: Experiment, folder: RunFolder, data: Data, mesh: jax.sharding.Mesh) -> None:
    """What was reached: translations of the test split and their scores, pictures, and where everything lies."""
    params, step = read_parameters(folder, experiment, mesh)
    say(f"checkpoint of step {step:,} of {folder.checkpoints}")
    results: dict[str, Any] = {"step": step}
    split, pairs = ("test", data.test) if data.test is not None else ("validation", data.validation)
    plots.curves(folder.metrics, folder.curves)
    if pairs is not None:
        translator = Translator(experiment.model, params, data.tokenizers, experiment.decoding, mesh)
        tokenizer = experiment.evaluation.bleu_tokenizer
        translations, scores = evaluation.translate_and_score(translator, pairs, bleu_tokenizer=tokenizer)
        text = evaluation.write_translations(folder.translations, split, translations, scores, step=step)
        for index in range(0, len(pairs), -(-len(pairs) // SAMPLES)):
            say(f"  {pairs.sources[index]}\n    -> {translations[index]}")
        plots.attention(translator.attend(pairs.sources[0]), folder.attention)
        say(f"{split}: {scores}")
        say(f"translations {text}, attention {folder.attention}")
        results |= {"split": split, **dataclasses.asdict(scores)}
    runs.write_atomically(folder.results, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    say(f"curves {folder.curves}, all of it in {folder.path}")
