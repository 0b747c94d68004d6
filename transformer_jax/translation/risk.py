"""Minimum Bayes risk: of many translations, the one that the others agree with most."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from sacrebleu.metrics import BLEU, CHRF

Utility: TypeAlias = Literal["chrf", "bleu"]


def minimum_bayes_risk(candidates: Sequence[str], utility: Utility = "chrf") -> int:
    """The index of the candidate of the greatest mean utility, all candidates being equally likely references.

    After Eikema and Aziz (2020). Of equals the first; what was drawn twice counts twice.

    Args:
        candidates: translations of one line.
        utility: sentence-level chrF, or BLEU with effective order.
    """
    score = _scorer(utility)
    distinct = list(dict.fromkeys(candidates))
    counts = [candidates.count(text) for text in distinct]
    expected = [
        sum(count * score(text, other) for other, count in zip(distinct, counts, strict=True)) for text in distinct
    ]
    return candidates.index(distinct[max(range(len(distinct)), key=expected.__getitem__)])


def _scorer(utility: Utility) -> Callable[[str, str], float]:
    metric = CHRF() if utility == "chrf" else BLEU(effective_order=True)

    def score(text: str, other: str) -> float:
        return 100.0 if text == other else float(metric.sentence_score(text, [other]).score)

    return score
