"""The run: load or restore, iterate, evaluate, save, go back where training went bad, report."""

import contextlib
import dataclasses
import functools
import json
import signal
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from transformer_jax import processes, runs, sharding
from transformer_jax.config import Experiment
from transformer_jax.data.batch import Batch
from transformer_jax.errors import DivergenceError, InputError
from transformer_jax.files import write_atomically
from transformer_jax.runs import RunFolder
from transformer_jax.training import data as datasets
from transformer_jax.training import evaluation, initial
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.data import Data
from transformer_jax.training.fingerprints import Items
from transformer_jax.training.interruption import Interruption, exit_code
from transformer_jax.training.metrics import say, score_of
from transformer_jax.training.observer import Observer
from transformer_jax.training.position import Position
from transformer_jax.training.profiling import Profile
from transformer_jax.training.step import SPIKE, StepReport, Trainer, TrainState
from transformer_jax.training.trained import rates_of, share_trained
from transformer_jax.translation import Translator, read_parameters

SAMPLES = 5  # translations shown at the end
IN_FLIGHT = 1  # steps that may be under way while the report of the one before is read; gloo hangs with many


def train(experiment: Experiment, workdir: str | Path, *, until: int | None = None, profile: bool = False) -> int:
    """Trains an experiment in a run folder, from its newest checkpoint on; returns the exit code.

    Args:
        experiment: the experiment.
        workdir: the run folder.
        until: a step after which the run stops as if a signal had asked it to: saved, and without the report of a run
            that is over. The schedule is still that of the whole run.
        profile: a trace of a few steps is written to the run folder, too.

    Raises:
        InputError: on whatever the user can mend, before anything is compiled where that can be known.
        DivergenceError: when the run went back to its checkpoints as often as it may.
    """
    with processes.started(experiment.processes):
        return train_among(experiment, workdir, until=until, profile=profile)


def train_among(experiment: Experiment, workdir: str | Path, *, until: int | None = None, profile: bool = False) -> int:
    """What `train` does, among processes that are connected already."""
    initial.initial_of.cache_clear()
    experiment = initial.resolved(experiment, workdir)
    rates_of(experiment.model, experiment.training)  # which names patterns that fit nothing
    mesh = sharding.make_mesh(experiment.mesh)
    sharding.check_mesh(mesh, experiment.model)
    sharding.check_rows(mesh, experiment.batch.rows)
    if experiment.checkpoints.on_failure == "go_on" and jax.process_count() > 1:
        raise InputError("checkpoints.on_failure='go_on': many processes cannot go on without a save; use 'stop'")
    say(sharding.describe_devices(mesh))
    with contextlib.ExitStack() as held:
        processes.on_coordinator(lambda: held.enter_context(runs.lock(workdir)))
        return _train(experiment, RunFolder(workdir), mesh, until, profile)


def _train(experiment: Experiment, folder: RunFolder, mesh: jax.sharding.Mesh, until: int | None, profile: bool) -> int:
    processes.on_coordinator(lambda: runs.start(folder.path, experiment))
    data = datasets.load(experiment, folder, mesh)
    processes.on_coordinator(
        lambda: runs.record_session(
            folder,
            experiment,
            platform_name=mesh.devices.flat[0].platform,
            devices=[f"{device} ({device.device_kind})" for device in mesh.devices.flat],
            digests=data.digests(),
        )
    )
    config = experiment.training
    with (
        Interruption() as interruption,
        checkpoints_of(folder, experiment) as checkpoints,
        Profile(folder.profile if profile else None) as steps,
    ):
        start = (
            None
            if experiment.init_from is None
            else functools.partial(initial.parameters_of, experiment, mesh, data.initial)
        )
        total = config.steps or data.training_batches.total_steps(config.epochs or 0)
        trainer = Trainer(experiment, mesh, total, start)
        if trainer.rates is not None:
            say("trained: {:,} of {:,} parameters".format(*share_trained(trainer.rates, trainer.abstract_state.params)))
        state, position = _restore(trainer, checkpoints)
        if position.is_last(trainer.total_steps) and processes.agree(folder.results.exists()):
            say(f"{folder.path}: finished at step {position.step:,}; nothing to do; see {folder.results}")
            return 0
        run = _Run(folder, data, trainer, checkpoints, interruption, steps, until)
        position = run.until_the_end(state, position)
        asked = processes.highest(interruption.signal or 0)
    if asked:
        further = "; the same command goes on from there" if until is None else ""
        say(f"{signal.Signals(asked).name}: saved step {position.step:,}{further}")
        return exit_code(asked)
    if until is None:
        report(experiment, folder, data, mesh)
    return 0


def checkpoints_of(folder: RunFolder, experiment: Experiment) -> Checkpoints:
    """The checkpoints of a run, kept as its experiment says."""
    config = experiment.checkpoints
    return Checkpoints(
        folder.checkpoints,
        newest=config.newest,
        best=config.best,
        score=score_of(experiment.evaluation.metric),
        scheduled=functools.partial(_is_scheduled, experiment),
        on_failure=config.on_failure,
    )


def _is_scheduled(experiment: Experiment, step: int) -> bool:
    """Whether a checkpoint of this step is due whatever happens to the run."""
    return step % experiment.checkpoints.every == 0 or step % experiment.evaluation.every == 0


def items_of(state: TrainState) -> Items:
    """The items of a checkpoint: parameters, optimizer, moving average where there is one, sums and health."""
    items = {
        "parameters": state.params,
        "optimizer": state.optimizer,
        "progress": state.progress,
        "health": state.health,
    }
    return items if state.average is None else {**items, "average": state.average}


def _restore(
    trainer: Trainer, checkpoints: Checkpoints, among: Callable[[int], bool] = lambda step: True
) -> tuple[TrainState, Position]:
    """The newest intact checkpoint among these steps; else the state before the first step."""
    checkpoints.settle()
    steps = [step for step in reversed(checkpoints.steps()) if among(step)]
    restored = checkpoints.restore(items_of(trainer.abstract_state), steps, set_aside=True)
    if restored is None:
        checkpoints.discard_after(-1)
        return trainer.new_state(), Position()
    checkpoints.discard_after(restored.step)
    position = Position(**restored.position)
    items = restored.items
    state = TrainState(
        step=trainer.step_number(position.step),
        params=items["parameters"],
        optimizer=items["optimizer"],
        average=items.get("average"),
        progress=items["progress"],
        health=items["health"],
    )
    return state, position


class _Trip(NamedTuple):
    """The step after which a run has to go back, and why."""

    position: Position
    told: StepReport


@dataclasses.dataclass(frozen=True)
class _Run:
    """One session of a run."""

    folder: RunFolder
    data: Data
    trainer: Trainer
    checkpoints: Checkpoints
    interruption: Interruption
    steps: Profile
    until: int | None  # the step to stop after, where that is not the last

    def until_the_end(self, state: TrainState, position: Position) -> Position:
        """Steps until the last one, until evaluations no longer get better, or until a signal."""
        while True:
            ended = self._iterate(state, position)
            if isinstance(ended, Position):
                return ended
            del state  # its memory is needed for the one that is restored
            state, position = self._go_back(ended)

    def _iterate(self, state: TrainState, position: Position) -> Position | _Trip:
        """Steps from a state on; returns where it stopped, or the bad step behind which it could not go on.

        What belongs to a step is written in this order: its evaluation, its line of metrics, its checkpoint. A resume
        cuts the logs back to the checkpoint it starts from, so nothing is missing and nothing is there twice. The
        reports of steps are read one step late, and all of them before anything is written.
        """
        config, batches = self.trainer.experiment, self.data.training_batches
        with (
            Observer(self.folder, self.data, self.trainer, position) as observer,
            closing(batches.batches(position.epoch, position.batch)) as upcoming,
        ):
            in_flight: deque[tuple[Position, list[int], jax.Array]] = deque()
            asked, last, enough = 0, position.is_last(self.trainer.total_steps), self._is_enough(position)
            while not (asked or last or enough):
                examples = batches.examples(position.epoch, position.batch)
                state, told = self._step(state, next(upcoming), position.step + 1)
                position = position.after(examples, batches.following(position.epoch, position.batch))
                in_flight.append((position, examples.tolist(), told))
                last, enough = position.is_last(self.trainer.total_steps), self._is_enough(position)
                evaluate = last or position.step % config.evaluation.every == 0
                log = last or position.step % config.logging.every == 0
                save = evaluate or enough or position.step % config.checkpoints.every == 0
                while len(in_flight) > (0 if log or save or asked else IN_FLIGHT):
                    trip, heard = self._read(in_flight.popleft(), observer)
                    if trip is not None:
                        return trip
                    asked = max(asked, heard)
                observer.advance(position.step)
                measured = observer.evaluate(state, position.step) if evaluate else None
                position = observer.judge(position, measured)
                last = last or position.stopped_early
                if log or last:
                    state = observer.write_metrics(state, position)
                if save or asked:
                    self._save(state, position, measured, observer)
            self.checkpoints.wait()
        return position

    def _is_enough(self, position: Position) -> bool:
        return self.until is not None and position.step >= self.until

    def _step(self, state: TrainState, batch: Batch, number: int) -> tuple[TrainState, jax.Array]:
        asked = self.trainer.asked(int(self.interruption.signal or 0))
        with jax.transfer_guard("disallow"):  # all it takes is on the devices already
            return self.steps.run(lambda: self.trainer.train_step(state, batch, asked), number)

    def _save(
        self, state: TrainState, position: Position, measured: dict[str, float] | None, observer: Observer
    ) -> None:
        seconds = self.checkpoints.save(position.step, items_of(state), dataclasses.asdict(position), measured)
        observer.saved(position.step, seconds)

    def _read(self, step: tuple[Position, list[int], jax.Array], observer: Observer) -> tuple[_Trip | None, int]:
        """What a step told: whether the run has to go back, and the signal that it was asked to stop by."""
        position, examples, device_report = step
        told = StepReport(*np.asarray(device_report).tolist())
        if not told.good:
            observer.skipped(position, examples, told)
        if not told.tripped:
            return None, int(told.asked)
        gives_up = position.rollbacks >= self.trainer.experiment.stability.max_rollbacks
        observer.record(position, "gave up" if gives_up else "went back", loss=told.loss, spike=told.tripped == SPIKE)
        return _Trip(position, told), 0

    def _go_back(self, trip: _Trip) -> tuple[TrainState, Position]:
        """The state of the last good checkpoint, and the position behind the data that led to the bad step.

        Only a checkpoint of the schedule will do, none that a signal asked for: what a run does must not depend on
        where it was interrupted. Without one, a run that should have had one by now goes back to what there is.

        Raises:
            DivergenceError: when the run went back as often as it may.
        """
        bad, config = trip.position, self.trainer.experiment
        why = (
            "a spike of the loss"
            if trip.told.tripped == SPIKE
            else f"{config.stability.max_skipped} bad steps in a row"
        )
        if bad.rollbacks >= config.stability.max_rollbacks:
            processes.barrier("gave up")  # the first error ends all processes: the record is to be written by then
            raise DivergenceError(
                f"step {bad.step:,}: {why} (loss {trip.told.loss:.4g}), after the run has gone back "
                f"{bad.rollbacks} times; see {self.folder.incidents}: a lower learning rate, clipping, or other data"
            )
        self.checkpoints.settle()
        scheduled = functools.partial(_is_scheduled, config)
        due = bad.step > min(config.checkpoints.every, config.evaluation.every)
        none = processes.agree(not any(map(scheduled, self.checkpoints.steps())))
        anything = due and none  # another schedule, say, was the one of the session before
        state, position = _restore(self.trainer, self.checkpoints, (lambda step: True) if anything else scheduled)
        say(
            f"step {bad.step:,}: {why} (loss {trip.told.loss:.4g}); going back to step {position.step:,}, and on "
            "behind the data in between"
        )
        return self.trainer.passed_over(state), position.back_from(bad)


def report(experiment: Experiment, folder: RunFolder, data: Data, mesh: jax.sharding.Mesh) -> None:
    """What was reached: translations of the test split and their scores, pictures, and where everything lies."""
    params, step = read_parameters(folder, experiment, mesh)
    say(f"checkpoint of step {step:,} of {folder.checkpoints}")
    split, pairs = ("test", data.test) if data.test is not None else ("validation", data.validation)
    translations: list[str] = []
    scores, attended = None, None
    if pairs is not None:
        longest = experiment.batch.source_length
        translator = Translator(experiment.model, params, data.tokenizers, experiment.decoding, mesh, longest=longest)
        tokenizer = experiment.evaluation.bleu_tokenizer
        translations, scores = evaluation.translate_and_score(translator, pairs, bleu_tokenizer=tokenizer)
        assert pairs.sources is not None
        drawn = next((source for source in pairs.sources if source.strip()), None)
        attended = None if drawn is None else translator.attend(drawn)
    if not processes.is_coordinator():
        return
    from transformer_jax import plots  # matplotlib, which takes a second to import, at the end of a run

    results: dict[str, Any] = {"step": step}
    plots.curves(folder.metrics, folder.curves)
    if pairs is not None and scores is not None:
        assert pairs.sources is not None
        text = evaluation.write_translations(folder.translations, split, translations, scores, step=step)
        for index in range(0, len(pairs), -(-len(pairs) // SAMPLES)):
            say(f"  {pairs.sources[index]}\n    -> {translations[index]}")
        if attended is not None:
            plots.attention(attended, folder.attention)
        say(f"{split}: {scores}")
        say(f"translations {text}, attention {folder.attention}")
        results |= {"split": split, **dataclasses.asdict(scores)}
    write_atomically(folder.results, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    say(f"curves {folder.curves}, all of it in {folder.path}")
