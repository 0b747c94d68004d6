"""Which piece belongs to which word, and which words to each other."""

import numpy as np
import pytest

from transformer_jax.translation.alignment import aligned_parts, aligned_words, num_words, pharaoh, words_of


@pytest.mark.parametrize(
    ("surfaces", "words"),
    [
        ([""], [-1]),
        ([" a", "b", " c", ""], [0, 0, 1, -1]),
        ([" ", "a", " ", " ", "c", ""], [-1, 0, -1, -1, 1, -1]),
        (["a", "b", " c", ""], [0, 0, 1, -1]),
        ([" a", " \u2047 ", "b", ""], [0, 1, 2, -1]),
        ([" a", "\u2047", "b", " c", ""], [0, 0, 0, 1, -1]),
        ([" a b", "c", ""], [1, 1, -1]),
    ],
)
def test_words(surfaces, words):
    assert words_of(surfaces) == words
    assert num_words(words) == max(words) + 1


def test_parts_count_on():
    """Source a b | c, translation x | y; without a gap the words at the seam are one."""
    weights = [np.array([[0.1, 0.9, 0]]), np.array([[0.8, 0.2]])]
    words = [([0, 1, -1], [0]), ([0, -1], [0])]
    assert aligned_parts(weights, words, [" ", ""]) == [(1, 0), (2, 1)]
    assert aligned_parts(weights, words, ["", ""]) == [(1, 0), (1, 0)]


def test_the_source_word_of_the_greatest_attention():
    """Source a1 a2 | b | end, translation x | y1 y2 | end: y's pieces see b with .4 + .5, and a with .6 + .4."""
    weights = np.array([[0.1, 0.1, 0.3, 0.5], [0.3, 0.3, 0.4, 0], [0.2, 0.2, 0.5, 0.1], [0, 0, 0, 1]])
    pairs = aligned_words(weights, [0, 0, 1, -1], [0, 1, 1, -1])
    assert pairs == [(1, 0), (0, 1)]
    assert pharaoh(pairs) == "1-0 0-1"
    assert aligned_words(weights[:, 3:], [-1], [0, 1, 1, -1]) == []
