"""The data of a run: pairs of every split, tokenizers, and batches, the same on every process."""

import dataclasses
from typing import NamedTuple

from jax.sharding import Mesh

from transformer_jax import processes, runs
from transformer_jax.config import Experiment, FilterConfig
from transformer_jax.data.filters import Report, filtered
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.sources import Pairs, Split, load_pairs, place_of
from transformer_jax.data.tokenizer import Tokenizers, train_tokenizers
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.runs import RunFolder
from transformer_jax.training import initial
from transformer_jax.training.metrics import say
from transformer_jax.translation.ensembles import check_models

INITIAL = "initial weights"  # by what environment.json knows them


@dataclasses.dataclass(frozen=True)
class Data:
    """The pairs of each split, the tokenizers, and the batches of training and validation."""

    train: Pairs
    validation: Pairs | None
    test: Pairs | None
    tokenizers: Tokenizers
    training_batches: Pipeline
    validation_batches: Pipeline | None
    initial: str | None = None  # the digest of the weights that the run starts from

    def digests(self) -> dict[str, str]:
        """What the data is, whatever its paths are."""
        found = {**digests_of(self.train, self.validation, self.test), "tokenizer": self.tokenizers.digest}
        return found if self.initial is None else {**found, INITIAL: self.initial}


def load(experiment: Experiment, folder: RunFolder, mesh: Mesh) -> Data:
    """Pairs, tokenizers (trained on the training pairs where the run has none yet), and batches.

    Raises:
        InputError: on data that is missing, empty or not that of the run, and on processes that see other data.
    """
    train, validation, test, report = load_splits(experiment)
    digests, weights = digests_of(train, validation, test), _initial_digest(experiment, folder)
    _check_alike(digests if weights is None else {**digests, INITIAL: weights})
    # Before anything is tokenised: a run that is refused has nothing new in its folder.
    processes.on_coordinator(lambda: runs.check_digests(folder, digests))
    if report is not None:
        say(str(report))
        processes.on_coordinator(lambda: write_atomically(folder.filters, report.to_json()))
    processes.on_coordinator(lambda: _make_tokenizers(experiment, folder, train))
    tokenizers = Tokenizers.load(folder.tokenizer)
    check_models(tokenizers, [experiment.model])

    def batches(pairs: Pairs) -> Pipeline:
        return Pipeline(pairs, tokenizers, experiment.batch, mesh, experiment.seed, folder.cache)

    training, evaluated = batches(train), None if validation is None else batches(validation)
    for name, pipeline in (("training", training), ("validation", evaluated)):
        if pipeline is not None:
            dropped = "".join(
                f", {count:,} dropped with {reason}" for reason, count in pipeline.dropped.items() if count
            )
            say(f"{name}: {pipeline.kept:,} of {pipeline.total:,} pairs{dropped}")
    return Data(train, validation, test, tokenizers, training, evaluated, weights)


class Splits(NamedTuple):
    """The pairs of each split, and what the filters say of those of training, where there are filters."""

    train: Pairs
    validation: Pairs | None
    test: Pairs | None
    report: Report | None


def load_splits(experiment: Experiment) -> Splits:
    """The pairs for training, filtered, and those for validation and test where there are any.

    Raises:
        InputError: on data that is missing, damaged or empty, also once it is filtered.
    """
    train, validation, test = (load_pairs(experiment.data, split) for split in ("train", "validation", "test"))
    if train is None:
        raise InputError("data.train: the experiment has no training pairs")
    if validation is None and (experiment.training.patience is not None or experiment.evaluation.metric != "loss"):
        raise InputError("data.validation: early stopping and the best checkpoint need validation pairs")
    splits: dict[Split, Pairs | None] = {"train": train, "validation": validation, "test": test}
    for split, pairs in splits.items():
        if pairs is not None and not len(pairs):
            place = place_of(experiment.data, split)
            raise InputError(f"data.{split}: there are no pairs in it, in {place}; give others, or none")
    if experiment.filters == FilterConfig():
        return Splits(train, validation, test, None)
    train, report = filtered(train, experiment.filters)
    if not len(train):
        raise InputError(f"data.train: no pair passes the filters ({report}); loosen them")
    return Splits(train, validation, test, report)


def digests_of(train: Pairs | None, validation: Pairs | None, test: Pairs | None) -> dict[str, str]:
    """The identity of each split there is, as environment.json records it."""
    splits = {"train": train, "validation": validation, "test": test}
    return {f"{name} data": pairs.digest for name, pairs in splits.items() if pairs is not None}


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


def _make_tokenizers(experiment: Experiment, folder: RunFolder, train: Pairs) -> None:
    there = folder.tokenizer.exists()
    tokenizers = Tokenizers.load(folder.tokenizer) if there else make_tokenizers(experiment, train)
    runs.check_digests(folder, {"tokenizer": tokenizers.digest})  # a run that lost its own gets no other one
    if not there:
        tokenizers.save(folder.tokenizer)


def make_tokenizers(experiment: Experiment, train: Pairs) -> Tokenizers:
    """The tokenizers of a run that has none yet: those of what it starts from, or trained on its training pairs."""
    if experiment.init_from is not None:
        return initial.tokenizers_of(experiment)
    assert train.sources is not None
    return train_tokenizers(experiment.tokenizer, experiment.model, train.sources, train.targets)
