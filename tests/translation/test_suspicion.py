"""What looks wrong in a translation."""

import pytest

from transformer_jax.translation import Hypothesis, Part, Translation
from transformer_jax.translation.suspicion import suspicions


def found(source, target, log_prob=-1.0, warnings=()):
    hypothesis = Hypothesis("text", 0.0, log_prob, (Part(source, target),))
    return suspicions(Translation("source", (hypothesis,), warnings))


TEN = list(range(10, 20))


@pytest.mark.parametrize(
    ("source", "target", "reasons"),
    [
        (TEN, TEN, []),
        (TEN, TEN[:4], []),
        (TEN, TEN[:3], ["length: 3 tokens of 10"]),
        (TEN[:4], TEN, []),
        (TEN[:3], TEN, ["length: 10 tokens of 3"]),
        ([1], TEN[:9], []),  # too short to tell
        (TEN, [5, 5, 5, 6, 7, 8], []),
        (TEN, [5, 5, 5, 5, 7, 8], ["repetition: the same tokens 4 times"]),
        (TEN, [9, *[5, 6, 7] * 4], ["repetition: the same tokens 4 times"]),
        (TEN, [9, *[5, 6, 7] * 3, 5, 6], []),
    ],
)
def test_reasons(source, target, reasons):
    assert found(source, target) == reasons


def test_low_scores():
    assert found(TEN, TEN, log_prob=-20.0) == []
    assert found(TEN, TEN, log_prob=-25.0) == ["score: -2.50 a token"]


def test_warnings_and_nothing():
    assert found(TEN, TEN, warnings=("split",)) == ["split"]
    assert suspicions(Translation("source", (), ("no translation",))) == ["no translation"]
    assert suspicions(Translation("", (Hypothesis("", 0.0, 0.0),))) == []
