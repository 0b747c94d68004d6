"""What is measured: loss and perplexity of given pairs, and the scores of real translations by sacrebleu."""

import contextlib
import dataclasses
import functools
import json
import math
import operator
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
from jax.sharding import Mesh
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest, Result

from transformer_jax.config import Experiment, ObjectiveConfig
from transformer_jax.data.batch import Batch
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.sources import Pairs
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.models import Parameters, Transformer
from transformer_jax.training.losses import EvaluatedSums, LossSums
from transformer_jax.training.step import EvalStep, make_eval_step
from transformer_jax.translation import Translator


def loss_metrics(sums: LossSums, split: str) -> dict[str, float]:
    """The mean negative log-likelihood of a token, in nats, without label smoothing, and e to its power."""
    loss = float(sums.log_loss) / max(float(sums.tokens), 1.0)
    return {f"{split}/loss": loss, f"{split}/perplexity": math.exp(min(loss, 700.0))}


def metrics_of(objective: ObjectiveConfig, sums: EvaluatedSums, split: str, pairs: Pairs) -> dict[str, float]:
    """The loss, and what else says something of an objective.

    That is the perplexity of text, the share of right answers where few of them are possible or one is asked for, and
    of all that a language model reads bits a byte, which do not depend on the vocabulary: of its lines in UTF-8,
    with one byte for the end of each, without blank ones.
    """
    metrics = loss_metrics(sums, split)
    if objective.kind in ("masked", "classification"):
        metrics[f"{split}/accuracy"] = float(sums.correct) / max(float(sums.tokens), 1.0)
    if objective.kind == "classification":
        del metrics[f"{split}/perplexity"]
    if objective.kind == "causal" and pairs.sources is None:
        size = sum(len(text.encode()) + 1 for text in pairs.targets if text.strip())
        metrics[f"{split}/bits_per_byte"] = float(sums.log_loss) / math.log(2) / size
    return metrics


def evaluate_loss(eval_step: EvalStep, params: Parameters, batches: Iterable[Batch]) -> EvaluatedSums:
    """The sums of the loss over all batches; evaluated without dropout, summed in order."""

    def add(total: EvaluatedSums, sums: EvaluatedSums) -> EvaluatedSums:
        return jax.block_until_ready(jax.tree.map(operator.add, total, sums))  # with gloo, unordered programs hang

    sums: EvaluatedSums = jax.device_get(functools.reduce(add, (eval_step(params, batch) for batch in batches)))
    return sums


def measure(
    experiment: Experiment, params: Parameters, batches: Pipeline, pairs: Pairs, split: str, mesh: Mesh
) -> dict[str, float]:
    """The metrics of the examples of a split, whose batches and parameters lie on a mesh."""
    eval_step = make_eval_step(Transformer(experiment.model), mesh)
    with contextlib.closing(batches.one_epoch()) as epoch:
        sums = evaluate_loss(eval_step, params, epoch)
    return metrics_of(experiment.objective, sums, split, pairs)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of a set of translations, and how sacrebleu counted them."""

    bleu: float  # mixed case
    chrf: float
    ter: float | None  # edits for each word of the references, in per cent; None where it was not asked for
    exact_match: float  # per cent of sentences that equal their reference
    sentences: int
    bleu_signature: str
    chrf_signature: str
    ter_signature: str | None
    exact_match_by_group: dict[str, float]  # for sets whose pairs have groups

    def __str__(self) -> str:
        groups = "".join(f", {name} {share:.2f}%" for name, share in self.exact_match_by_group.items())
        return (
            f"BLEU {self.bleu:.2f} ({self.bleu_signature}), chrF {self.chrf:.2f} ({self.chrf_signature}), "
            f"{'' if self.ter is None else f'TER {self.ter:.2f} ({self.ter_signature}), '}"
            f"exact match {self.exact_match:.2f}% of {self.sentences:,}{groups}"
        )


def score(
    translations: Sequence[str],
    references: Sequence[str],
    groups: Sequence[str] | None = None,
    bleu_tokenizer: str = "13a",
    edits: bool = True,
) -> Scores:
    """BLEU, chrF and TER of a corpus with one reference a sentence, and the share that match it exactly, by group too.

    TER is as slow as decoding where lines are long; `edits` says whether it is counted.

    Raises:
        InputError: when there is no sentence.
    """
    if not references:
        raise InputError("there is no sentence to score")
    bleu, chrf, ter = BLEU(tokenize=bleu_tokenizer), CHRF(), TER()
    matches = [ours == theirs for ours, theirs in zip(translations, references, strict=True)]
    by_group: dict[str, list[bool]] = {}
    for group, match in zip(groups or [], matches, strict=bool(groups)):
        by_group.setdefault(group, []).append(match)
    return Scores(
        bleu=bleu.corpus_score(list(translations), [list(references)]).score,
        chrf=chrf.corpus_score(list(translations), [list(references)]).score,
        ter=ter.corpus_score(list(translations), [list(references)]).score if edits else None,
        exact_match=_percent(matches),
        sentences=len(matches),
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
        ter_signature=str(ter.get_signature()) if edits else None,
        exact_match_by_group={name: _percent(by_group[name]) for name in sorted(by_group)},
    )


def _percent(matches: Sequence[bool]) -> float:
    return 100.0 * sum(matches) / len(matches)


def compare(
    translations: Sequence[str], others: Sequence[str], references: Sequence[str], bleu_tokenizer: str = "13a"
) -> list[str]:
    """Two systems side by side, a line a metric, by paired bootstrap over 1,000 samples (Koehn, 2004)."""
    if list(translations) == list(others):
        return ["the other's translations are the same, every one"]  # of which sacrebleu says p = 0.001
    own = [list(references)]
    metrics = {
        "BLEU": BLEU(tokenize=bleu_tokenizer, references=own),
        "chrF": CHRF(references=own),
        "TER": TER(references=own),
    }
    systems: list[tuple[str, Sequence[str]]] = [("the other", list(others)), ("this run", list(translations))]
    signatures, results = PairedTest(systems, metrics, references=None, test_type="bs", n_samples=1000)()
    lines = []
    for name, signature in signatures.items():
        other, ours = cast(list[Result], results[name])
        lines.append(
            f"{name}: this run {ours.score:.2f}, the other {other.score:.2f}, p = {ours.p_value:.4f} ({signature})"
        )
    return lines


def translate_and_score(
    translator: Translator, pairs: Pairs, limit: int | None = None, *, bleu_tokenizer: str = "13a", edits: bool = True
) -> tuple[list[str], Scores]:
    """Translations of the first `limit` pairs of a set (all where None), and their scores."""
    assert pairs.sources is not None  # as pairs of translations have them
    sources, targets = pairs.sources[:limit], pairs.targets[:limit]
    translations = translator.translate(sources, warn=False)  # a model in training goes wrong often
    return translations, score(
        translations, targets, pairs.groups[:limit] if pairs.groups else None, bleu_tokenizer, edits
    )


def write_translations(folder: Path, name: str, translations: Sequence[str], scores: Scores, **context: Any) -> Path:
    """Writes NAME.txt, a translation a line, and NAME.json, the scores with their signatures and their context."""
    text = folder / f"{name}.txt"
    write_atomically(text, "".join(f"{line}\n" for line in translations))
    record = {**dataclasses.asdict(scores), **context}
    write_atomically(folder / f"{name}.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return text
