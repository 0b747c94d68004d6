"""Which piece belongs to which word, and which words to each other."""

import numpy as np
import pytest

from transformer_jax.translation.alignment import aligned_parts, aligned_words, num_words, pharaoh, words_of

B = "\u2581"
END = "</s>"


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([END], [-1]),
        ([f"{B}a", "b", f"{B}c", END], [0, 0, 1, -1]),
        ([B, "a", B, B, "c", END], [-1, 0, -1, -1, 1, -1]),
        (["a", "b", f"{B}c", END], [0, 0, 1, -1]),
        ([f"{B}a", "<unk>", "b", END], [0, 1, 2, -1]),
        ([f"{B}a{B}b", "c", END], [1, 1, -1]),
    ],
)
def test_words(pieces, words):
    assert words_of(pieces) == words
    assert num_words(words) == max(words) + 1


def test_in_a_text_that_was_read_the_unknown_stands_for_letters():
    assert words_of([f"{B}a", "<unk>", "b", f"{B}c", END], written=False) == [0, 0, 0, 1, -1]
    assert words_of([B, "<unk>", f"{B}c", END], written=False) == [-1, 0, 1, -1]


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
