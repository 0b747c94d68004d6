"""Of many translations, the one that the others agree with most."""

import pytest
from sacrebleu.metrics import BLEU, CHRF

from transformer_jax.translation.risk import minimum_bayes_risk

CANDIDATES = ["a dog runs", "the dog runs home", "the dog runs", "cats sleep", "the dog ran home", "the dog runs"]


@pytest.mark.parametrize("utility", ["chrf", "bleu"])
def test_the_greatest_mean_utility(utility):
    metric = CHRF() if utility == "chrf" else BLEU(effective_order=True)
    expected = [sum(metric.sentence_score(one, [other]).score for other in CANDIDATES) for one in CANDIDATES]
    assert minimum_bayes_risk(CANDIDATES, utility) == expected.index(max(expected))


def test_what_was_drawn_twice_counts_twice():
    """Of two that have nothing in common, the one that came more often; of equals the first."""
    assert minimum_bayes_risk(["xyz", "abc", "abc"]) == 1
    assert minimum_bayes_risk(["xyz", "abc"]) == 0
    assert minimum_bayes_risk(["xyz"]) == 0
