"""The data of a run: pairs of every split, tokenizers, and batches, the same on every process."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from jax.sharding import Mesh

from transformer_jax import processes, runs
from transformer_jax.config import (
    Classification,
    DataConfig,
    Experiment,
    FilterConfig,
    ObjectiveConfig,
)
from transformer_jax.data.batches import examples_in, examples_of
from transformer_jax.data.corpus import Corpus
from transformer_jax.data.filters import Report, filtered
from transformer_jax.data.keys import TASK, key_of
from transformer_jax.data.laps import laps_of
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.reservoir import sample
from transformer_jax.data.shards import TOKENIZER, Shards
from transformer_jax.data.sources import Example, Pairs, Split, load_pairs, naming, place_of
from transformer_jax.data.tokenizer import Tokenizers, train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically, written_whole
from transformer_jax.runs import RunFolder
from transformer_jax.training import initial
from transformer_jax.training.metrics import say
from transformer_jax.training.prepared import check_tokenizer, open_shards
from transformer_jax.translation.ensembles import check_vocabulary

INITIAL = "initial weights"  # by what environment.json knows them


@dataclasses.dataclass(frozen=True)
class Splits:
    """The pairs of each split, and those of the further tasks of a mixture; what is trained on is filtered."""

    train: Pairs | Shards
    validation: Pairs | None
    test: Pairs | None
    mixed: tuple[Pairs | Shards, ...] = ()
    reports: tuple[Report, ...] = ()  # of the filters, where there are some: of the experiment's data and each task's

    def digests(self) -> dict[str, str]:
        """The identity of each that there is, as environment.json records it."""
        named: dict[str, Pairs | Shards | None] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        named |= {f"task {number}": pairs for number, pairs in enumerate(self.mixed)}
        return {f"{name} data": pairs.digest for name, pairs in named.items() if pairs is not None}


@dataclasses.dataclass(frozen=True)
class Data:
    """The splits, the tokenizers, and the batches of training and validation."""

    splits: Splits
    tokenizers: Tokenizers
    training_batches: Pipeline
    validation_batches: Pipeline | None
    initial: str | None = None  # the digest of the weights that the run starts from

    def digests(self) -> dict[str, str]:
        """What the data is, whatever its paths are."""
        found = {**self.splits.digests(), "tokenizer": self.tokenizers.digest}
        return found if self.initial is None else {**found, INITIAL: self.initial}


def load(experiment: Experiment, folder: RunFolder, mesh: Mesh) -> Data:
    """Pairs, tokenizers (trained on the training pairs where the run has none yet), and batches.

    Raises:
        InputError: on data that is missing, empty or not that of the run, and on processes that see other data.
    """
    splits = load_splits(experiment)
    digests, weights = splits.digests(), _initial_digest(experiment, folder)
    _check_alike(digests if weights is None else {**digests, INITIAL: weights})
    # Before anything is tokenised: a run that is refused has nothing new in its folder.
    processes.on_coordinator(lambda: runs.check_digests(folder, digests))
    processes.on_coordinator(lambda: _tell_dropped(folder, splits.reports))
    processes.on_coordinator(lambda: _make_tokenizers(experiment, folder, splits))
    tokenizers = Tokenizers.load(folder.tokenizer)
    for shards in (splits.train, *splits.mixed):
        if isinstance(shards, Shards):
            check_tokenizer(shards, tokenizers.digest, "that of the run")
    check_vocabulary(tokenizers, experiment.model)
    maker = BatchMaker(experiment, tokenizers, mesh, folder.cache)
    training, evaluated = maker.training(splits), None
    if splits.validation is not None:
        evaluated = maker.evaluation("validation", splits.validation)
    return Data(splits, tokenizers, training, evaluated, weights)


def load_splits(experiment: Experiment) -> Splits:
    """The pairs for training, filtered, and those for validation and test where there are any.

    Raises:
        InputError: on data that is missing, damaged or empty, also once it is filtered.
    """
    trained, reports = _texts(experiment) if experiment.prepared is None else (open_shards(experiment), [])
    held_out = "data" if experiment.held_out is None else "held_out"
    with naming(held_out.replace("_", "-")):
        validation, test = (load_pairs(experiment.data_of(split), split) for split in ("validation", "test"))
    if validation is None and (experiment.training.patience is not None or experiment.evaluation.metric != "loss"):
        raise InputError(f"{held_out}.validation: early stopping and the best checkpoint need validation pairs")
    _check_some(validation, experiment.data_of("validation"), "validation", held_out)
    _check_some(test, experiment.data_of("test"), "test", held_out)
    return Splits(trained[0], validation, test, tuple(trained[1:]), tuple(reports))


def _texts(experiment: Experiment) -> tuple[list[Pairs], list[Report]]:
    """The texts of the experiment and of its tasks, filtered, and what the filters dropped of each."""
    flags = ["data", *(f"mixture.tasks.{number}.data" for number in range(len(experiment.mixture.tasks)))]
    datas = [experiment.data, *(task.data for task in experiment.mixture.tasks)]
    loaded = [_loaded(data, "train", flag) for flag, data in zip(flags, datas, strict=True)]
    if experiment.filters == FilterConfig():
        return loaded, []
    kept = [_filtered(pairs, experiment.filters, flag) for flag, pairs in zip(flags, loaded, strict=True)]
    return [pairs for pairs, _ in kept], [report for _, report in kept]


def _filtered(pairs: Pairs, filters: FilterConfig, flag: str) -> tuple[Pairs, Report]:
    kept, report = filtered(pairs, filters)
    if not len(kept):
        raise InputError(f"{flag}.train: no pair passes the filters ({report}); loosen them")
    return kept, report


def _tell_dropped(folder: RunFolder, reports: Sequence[Report]) -> None:
    """Says what the filters dropped, and writes it down."""
    for number, report in enumerate(reports):
        say(str(report) if number == 0 else f"task {number - 1}: {report}")
        path = folder.filters if number == 0 else folder.filters.with_stem(f"filters-task-{number - 1}")
        write_atomically(path, report.to_json())


def _loaded(data: DataConfig, split: Split, flag: str) -> Pairs:
    with naming(flag):
        pairs = load_pairs(data, split)
    if pairs is None:
        raise InputError(f"{flag}.{split}: the experiment has no training pairs")
    _check_some(pairs, data, split, flag)
    return pairs


def _check_some(pairs: Pairs | None, data: DataConfig, split: Split, flag: str) -> None:
    if pairs is not None and not len(pairs):
        place = place_of(data, split)
        raise InputError(f"{flag}.{split}: there are no pairs in it, in {place}; give others, or none")


@dataclasses.dataclass(frozen=True)
class BatchMaker:
    """What makes batches of the pairs of a run."""

    experiment: Experiment
    tokenizers: Tokenizers
    mesh: Mesh
    cache: Path

    def training(self, splits: Splits) -> Pipeline:
        """The batches of the training pairs, and of what is mixed with them."""
        mixture, corpora = self.experiment.mixture, self.corpora(splits)
        rates = [mixture.rate, *(task.rate for task in mixture.tasks)]
        sizes = [len(corpus) ** (1 / mixture.temperature) for corpus in corpora]
        return self._batches(corpora, [rate or size for rate, size in zip(rates, sizes, strict=True)])

    def corpora(self, splits: Splits) -> list[Corpus]:
        """The examples of the training pairs, and those of each task that is mixed with them."""
        sampling = self.experiment.tokenizer.sampling
        corpora = [self._corpus("training", splits.train, self.experiment.objective, sampling)]
        for number, (task, pairs) in enumerate(zip(self.experiment.mixture.tasks, splits.mixed, strict=True)):
            seed = int(key_of(self.experiment.seed, number, 0, TASK))
            corpora.append(self._corpus(f"task {number}", pairs, task.objective, sampling, seed))
        return corpora

    def evaluation(self, name: str, pairs: Pairs) -> Pipeline:
        """The batches of a split that is evaluated."""
        return self._batches([self._corpus(name, pairs, self.experiment.objective)], [1.0])

    def _corpus(
        self,
        name: str,
        pairs: Pairs | Shards,
        config: ObjectiveConfig,
        sampling: float = 0.0,
        seed: int | None = None,
    ) -> Corpus:
        """The examples of an objective, after a line that says how many there are."""
        batch, seed = self.experiment.batch, self.experiment.seed if seed is None else seed
        if isinstance(pairs, Shards):
            plain = pairs.manifest.plain
            corpus = examples_in(pairs, config, self.tokenizers, batch, seed, sampling)
        else:
            plain = pairs.sources is None
            corpus = examples_of(pairs, config, self.tokenizers, batch, seed, self.cache, sampling)
        dropped = "".join(f", {count:,} dropped with {reason}" for reason, count in corpus.dropped.items() if count)
        kept = corpus.total - sum(corpus.dropped.values())
        parts = "" if kept == len(corpus) else f" in {len(corpus):,} parts"
        say(f"{name}: {kept:,} of {corpus.total:,} {'texts' if plain else 'pairs'}{parts}{dropped}")
        return corpus

    def _batches(self, corpora: Sequence[Corpus], rates: Sequence[float]) -> Pipeline:
        batch, seed = self.experiment.batch, self.experiment.seed
        return Pipeline(laps_of(corpora, rates, seed), self.tokenizers.target.special, batch, self.mesh, seed)


def _check_alike(digests: dict[str, str]) -> None:
    """Every process reads the same data: with other files on one host, the batches of a step would not fit together."""
    first = processes.agree(digests)
    changed = [
        f"{name}: {first.get(name)} -> {digest}" for name, digest in digests.items() if first.get(name) != digest
    ]
    if changed or len(first) != len(digests):
        raise InputError(f"this process reads other data than process 0: {'; '.join(changed)}; give all the same files")


def _initial_digest(experiment: Experiment, folder: RunFolder) -> str | None:
    """That of the weights a run starts from; of one that has begun as it was then, for they are not needed any more."""
    if experiment.init_from is None:
        return None
    recorded = runs.recorded_digests(folder)
    if recorded and INITIAL not in recorded:
        raise InputError(
            f"{folder.path}: did not start from a checkpoint; leave out --init-from {experiment.init_from}, or choose "
            "another --workdir"
        )
    return recorded.get(INITIAL) or initial.initial_of(experiment).digest()


def _make_tokenizers(experiment: Experiment, folder: RunFolder, splits: Splits) -> None:
    there = folder.tokenizer.exists()
    tokenizers = Tokenizers.load(folder.tokenizer) if there else make_tokenizers(experiment, splits)
    runs.check_digests(folder, {"tokenizer": tokenizers.digest})  # a run that lost its own gets no other one
    if not there:
        with written_whole(folder.tokenizer) as temporary:
            tokenizers.save(temporary)


def make_tokenizers(experiment: Experiment, splits: Splits) -> Tokenizers:
    """The tokenizers of a run that has none yet: those of what it starts from, or trained on all its training text.

    Token shards have theirs beside them.
    """
    if isinstance(splits.train, Shards):
        made = Tokenizers.load(splits.train.folder / TOKENIZER)
        check_tokenizer(splits.train, made.digest, "that beside the shards")
        if experiment.init_from is not None:
            check_tokenizer(splits.train, initial.tokenizers_of(experiment).digest, f"that of {experiment.init_from}")
        return made
    texts = (pairs.examples() for pairs in (splits.train, *splits.mixed) if isinstance(pairs, Pairs))
    return tokenizers_of_text(experiment, itertools.chain.from_iterable(texts))


def tokenizers_of_text(experiment: Experiment, examples: Iterable[Example]) -> Tokenizers:
    """The tokenizers of what an experiment starts from, or trained on these examples, or some of them, as it says."""
    if experiment.init_from is not None:
        return initial.tokenizers_of(experiment)
    chosen = sample(examples, experiment.tokenizer.examples)
    classes = isinstance(experiment.objective, Classification)
    sources = (source for source, _ in chosen if source is not None)
    targets = (target for _, target in chosen if not classes)
    return train_tokenizers(experiment.tokenizer, experiment.model, sources, targets)
