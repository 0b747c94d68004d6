"""The run: load or restore, iterate, log, evaluate, save, report."""

import dataclasses
import json
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from transformer_jax import plots, runs, sharding
from transformer_jax.config import Experiment
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.sources import Pairs, load_pairs
from transformer_jax.data.tokenizer import Tokenizers, train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.runs import RunFolder
from transformer_jax.training import evaluation
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.fingerprints import Items
from transformer_jax.training.interruption import Interruption
from transformer_jax.training.metrics import MetricsLog, ProgressReport, score_of
from transformer_jax.training.step import Trainer, TrainState
from transformer_jax.translation import Translator, read_parameters

SAMPLES = 5  # translations shown at the end


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run stands, beside its arrays: a part of each checkpoint."""

    step: int = 0
    epoch: int = 0  # of the next batch
    batch: int = 0  # its index there
    best_score: float | None = None  # of all evaluations so far; higher is better
    evaluations_since_best: int = 0
    stopped_early: bool = False

    def is_last(self, total_steps: int) -> bool:
        """Whether no step is to follow."""
        return self.stopped_early or self.step >= total_steps


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
    sharding.check_mesh(mesh, experiment.model)
    say(sharding.describe_devices(mesh))
    with runs.lock(workdir):
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
        trainer = Trainer(experiment, mesh, config.steps or data.training_batches.total_steps(config.epochs or 0))
        with checkpoints_of(folder, experiment) as checkpoints:
            state, position = _restore(trainer, checkpoints)
            if position.is_last(trainer.total_steps) and folder.results.exists():
                say(f"{folder.path}: finished at step {position.step:,}; nothing to do; see {folder.results}")
                return 0
            with Interruption() as interruption:
                position = _iterate(folder, data, trainer, checkpoints, state, position, interruption)
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
    for split, pairs in (("train", train), ("validation", validation), ("test", test)):
        if pairs is not None and not len(pairs):
            raise InputError(f"data.{split}: there are no pairs in it; give others, or none")
    if folder.tokenizer.exists():
        tokenizers = Tokenizers.load(folder.tokenizer)
    else:
        tokenizers = train_tokenizers(experiment.tokenizer, experiment.model, train.sources, train.targets)
        runs.check_digests(folder, {"tokenizer": tokenizers.digest})  # a run that lost its own gets no other one
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
    restored = checkpoints.restore(items_of(trainer.abstract_state), set_aside=True)
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


def _iterate(
    folder: RunFolder,
    data: Data,
    trainer: Trainer,
    checkpoints: Checkpoints,
    state: TrainState,
    position: Position,
    interruption: Interruption,
) -> Position:
    """Steps until the last one, until evaluations no longer get better, or until a signal.

    What belongs to a step is written in this order: its evaluation, its line of metrics, its checkpoint. A resume cuts
    the logs back to the checkpoint it starts from, so nothing is missing and nothing is there twice.
    """
    experiment, total_steps = trainer.experiment, trainer.total_steps
    tensorboard = folder.tensorboard if experiment.logging.tensorboard else None
    with (
        MetricsLog(folder.metrics, folder.timings, tensorboard, step=position.step) as log,
        ProgressReport(total_steps, position.step) as progress,
        closing(data.training_batches.batches(position.epoch, position.batch)) as batches,
    ):
        observer = _Observer(data, trainer, log, progress)
        stop = False
        while not (stop or position.is_last(total_steps)):
            state = trainer.train_step(state, next(batches))
            epoch, batch = data.training_batches.following(position.epoch, position.batch)
            position = replace(position, step=position.step + 1, epoch=epoch, batch=batch)
            progress.advance(position.step)
            measured = None
            if position.is_last(total_steps) or position.step % experiment.evaluation.every == 0:
                measured = observer.evaluate(state, position.step)
                position = observer.judge(position, measured)
            if position.is_last(total_steps) or position.step % experiment.logging.every == 0:
                state = observer.write_metrics(state, position.step)
            stop = interruption.signal is not None  # read once: what stops the loop is what was saved for
            due = position.step % experiment.checkpoints.every == 0
            if due or measured or stop or position.is_last(total_steps):
                checkpoints.save(position.step, items_of(state), dataclasses.asdict(position), measured)
        checkpoints.wait()
    return position


class _Observer:
    """Measures a run between its steps, and tells the logs and whoever watches."""

    def __init__(self, data: Data, trainer: Trainer, log: MetricsLog, progress: ProgressReport) -> None:
        self.experiment, self.data, self.trainer = trainer.experiment, data, trainer
        self.log, self.progress = log, progress
        self.translator: Translator | None = None
        self.logged_at = time.monotonic()

    def write_metrics(self, state: TrainState, step: int) -> TrainState:
        """Writes the means since the last time, and starts the sums anew."""
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

    def evaluate(self, state: TrainState, step: int) -> dict[str, float] | None:
        """Loss and scores on the validation split; None where there is none."""
        batches, pairs = self.data.validation_batches, self.data.validation
        if batches is None or pairs is None:
            return None
        started = time.monotonic()
        with closing(batches.one_epoch()) as epoch:
            sums = evaluation.evaluate_loss(self.trainer.eval_step, state.evaluated, epoch)
        metrics = evaluation.loss_metrics(sums, "validation")
        signatures: dict[str, str] = {}
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
            signatures = {
                "validation/bleu_signature": scores.bleu_signature,
                "validation/chrf_signature": scores.chrf_signature,
            }
        now = time.monotonic()
        self.log.write(step, metrics | signatures, {"evaluation_seconds": now - started})
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

    def judge(self, position: Position, measured: dict[str, float] | None) -> Position:
        """Counts evaluations without a better score, and stops the run after `training.patience` of them."""
        if measured is None:
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
        drawn = next((source for source in pairs.sources if source.strip()), None)
        if drawn is not None:
            plots.attention(translator.attend(drawn), folder.attention)
        say(f"{split}: {scores}")
        say(f"translations {text}, attention {folder.attention}")
        results |= {"split": split, **dataclasses.asdict(scores)}
    write_atomically(folder.results, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    say(f"curves {folder.curves}, all of it in {folder.path}")
