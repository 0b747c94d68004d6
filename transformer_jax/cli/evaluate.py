"""Loss, perplexity and scores of real translations, on a split of a run's experiment or on files.

    transformer-jax evaluate RUN [--split test ...]

transformer-jax evaluate RUN --help lists every option, with the values of the run's experiment.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from transformer_jax.checked import leaves_of
from transformer_jax.cli.arguments import over_run
from transformer_jax.config import (
    DataConfig,
    DecodingConfig,
    Experiment,
    ObjectiveConfig,
    PlainText,
    TextFiles,
    reads_pairs,
)
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.runs import RunFolder, check_digests

if TYPE_CHECKING:
    from transformer_jax.data.sources import Pairs


def main(arguments: Sequence[str]) -> int:
    """Evaluates; returns the exit code."""
    return over_run("evaluate RUN", __doc__, _evaluate_of, arguments)


def _evaluate_of(run: Path, experiment: Experiment) -> Callable[..., int]:
    def evaluate(
        decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = experiment.decoding,
        split: Literal["validation", "test"] = "test",
        source: Path | None = None,
        target: Path | None = None,
        against: Path | None = None,
        tokenised: str | None = None,
        data_dir: Annotated[str | None, tyro.conf.arg(name="data.dir")] = None,
        step: int | None = None,
        devices: int = 1,
    ) -> int:
        """Loss, perplexity and scores of real translations; all of it is written into the run folder.

        Args:
            decoding: how to translate.
            split: the split of the run's experiment.
            source: instead of a split, a file of sentences, one a line, plain or .gz; needs --target.
            target: the file of their translations, or classes; of a model of plain text, a file of text alone.
            against: translations of the same sentences by another system, a file with one a line: compares the two by
                paired bootstrap.
            tokenised: a language such as de: also BLEU on the tokens that Moses makes of it, with and without
                hyphenated compounds split, as papers before sacrebleu have it.
            data_dir: the folder of the experiment's data, where it has moved.
            step: the checkpoint to evaluate; None is the best, or the newest where none was measured.
            devices: that share the sentences; -1 is all there are.
        """
        folder = RunFolder(run)
        if experiment.objective.kind != "translation":
            _refuse_translation(experiment, decoding, against, tokenised)
        if source is None and target is None:
            name: str = split
            pairs = _pairs_of_split(folder, experiment.data_of(split), split, data_dir)
        elif data_dir is not None:
            raise InputError(f"--data.dir {data_dir}: of a split; the files are named by --source and --target")
        else:
            name, pairs = _pairs_of_files(source, target, experiment.objective)
        others = None if against is None else _others(against, len(pairs.targets))
        _evaluate(folder, experiment, decoding, pairs, name, step, others, tokenised, devices)
        return 0

    return evaluate


def _others(path: Path, count: int) -> list[str]:
    """The translations of another system, one for each of so many sentences."""
    from transformer_jax.translation.lines import all_lines

    lines = all_lines(path)
    if len(lines) != count:
        raise InputError(f"--against {path}: {len(lines)} lines for {count} sentences")
    return lines


def _refuse_translation(
    experiment: Experiment, decoding: DecodingConfig, against: Path | None, tokenised: str | None
) -> None:
    """Refuses what is of translations alone."""
    own, given = dict(leaves_of(dataclasses.asdict(experiment.decoding))), leaves_of(dataclasses.asdict(decoding))
    asked = {name: value for name, value in given if value != own[name]}
    asked |= {name: value for name, value in (("against", against), ("tokenised", tokenised)) if value is not None}
    for name, value in asked.items():
        raise InputError(
            f"--{name.replace('_', '-')} {value}: a run of objective.kind={experiment.objective.kind!r} translates "
            "nothing; leave it out"
        )


def _pairs_of_files(source: Path | None, target: Path | None, objective: ObjectiveConfig) -> tuple[str, "Pairs"]:
    """A name that no split has, and what is in the files."""
    from transformer_jax.data.sources import load_pairs

    if target is None or (source is None) is reads_pairs(objective):
        raise InputError(
            "--source and --target belong together: give both, or neither to evaluate a split"
            if reads_pairs(objective)
            else f"--source {source}: objective.kind={objective.kind!r} is of plain text; give --target alone"
        )
    for flag, file in (("--source", source), ("--target", target)):
        if file is not None and not file.is_file():
            raise InputError(f"{flag} {file}: no such file")
    text = PlainText(test=str(target))
    pairs = load_pairs(text if source is None else TextFiles(test=(str(source), str(target))), "test")
    assert pairs is not None  # the split is given
    return f"file-{(source or target).name}", pairs


def _pairs_of_split(
    folder: RunFolder, data: DataConfig, split: Literal["validation", "test"], moved_to: str | None
) -> "Pairs":
    """The pairs of a split, wherever they are, the same as in training."""
    from transformer_jax.data.sources import load_pairs, moved

    if moved_to is not None:
        data = moved(data, moved_to)
    pairs = load_pairs(data, split)
    if pairs is None:
        raise InputError(
            f"--split {split}: the experiment of {folder.path} has no {split} pairs; --split chooses another"
        )
    check_digests(folder, {f"{split} data": pairs.digest})
    return pairs


def _evaluate(
    folder: RunFolder,
    experiment: Experiment,
    config: DecodingConfig,
    pairs: "Pairs",
    name: str,
    step: int | None,
    others: Sequence[str] | None,
    tokenised: str | None,
    devices: int,
) -> None:
    """Prints loss and scores, and writes translations and scores, where the run has learned to translate."""
    from transformer_jax import sharding
    from transformer_jax.training import evaluation
    from transformer_jax.training.data import BatchMaker
    from transformer_jax.training.tokenised import TokenisedBleu
    from transformer_jax.translation import Translator, load_tokenizers, read_parameters

    counter = None if tokenised is None else TokenisedBleu(tokenised)
    mesh = sharding.data_mesh(devices)
    tokenizers = load_tokenizers(folder)
    params, step = read_parameters(folder, experiment, mesh, step)
    batch = dataclasses.replace(experiment.batch, rows=sharding.shared_rows(mesh, experiment.batch.rows))
    here = dataclasses.replace(experiment, batch=batch)
    batches = BatchMaker(here, tokenizers, mesh, folder.cache).evaluation(name, pairs)
    losses = evaluation.measure(experiment, params, batches, pairs, name, mesh)
    print(", ".join(f"{metric} {value:.4f}" for metric, value in losses.items()))
    if experiment.objective.kind != "translation":
        path = folder.evaluations / f"{name}.json"
        write_atomically(path, json.dumps({"step": step, **losses}, indent=2) + "\n")
        print(f"checkpoint of step {step:,}; written to {path}")
        return
    longest = experiment.batch.source_length
    translator = Translator(experiment.model, params, tokenizers, config, mesh, longest=longest)
    tokenizer = experiment.evaluation.bleu_tokenizer
    translations, scores = evaluation.translate_and_score(translator, pairs, bleu_tokenizer=tokenizer)
    context = {"step": step, "decoding": dataclasses.asdict(config), **losses}
    on_tokens = None if counter is None else counter.score(translations, pairs.targets)
    if on_tokens is not None:
        context["tokenised"] = dataclasses.asdict(on_tokens)
    path = evaluation.write_translations(folder.translations, name, translations, scores, **context)
    print(f"{name}: {scores}")
    if on_tokens is not None:
        print(f"{name}: {on_tokens}")
    if others is not None:
        for line in evaluation.compare(translations, others, pairs.targets, bleu_tokenizer=tokenizer):
            print(line)
    print(f"checkpoint of step {step:,}; translations in {path}")
