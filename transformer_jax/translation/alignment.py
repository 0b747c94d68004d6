"""Words of a source and its translation that belong together, by attention."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def words_of(surfaces: Sequence[str]) -> list[int]:
    """The word of the text that each piece belongs to, counted from 0; -1 for white space and what writes nothing.

    Args:
        surfaces: what each piece of a whole text writes, spaces included.
    """
    words, word, inside = [], -1, False
    for surface in surfaces:
        own = -1
        for character in surface:
            if character != " ":
                word += not inside
                own = word
            inside = character != " "
        words.append(own)
    return words


def num_words(words: Sequence[int]) -> int:
    """How many there are."""
    return max(words, default=-1) + 1


def aligned_words(
    weights: Float[np.ndarray, "T S"], source: Sequence[int], target: Sequence[int]
) -> list[tuple[int, int]]:
    """For every word of the translation, the source word that its pieces attend to most; of equals the first.

    Args:
        weights: attention of the pieces of the translation to those of the source.
        source: the word of each piece; see `words_of`.
        target: likewise.
    """
    if not num_words(source):
        return []
    by_word = _membership(target).T @ weights @ _membership(source)  # -> [words, words]
    return [(int(np.argmax(row)), word) for word, row in enumerate(by_word)]


def aligned_parts(
    weights: Sequence[Float[np.ndarray, "_ _"]],
    words: Sequence[tuple[Sequence[int], Sequence[int]]],
    gaps: Sequence[str],
) -> list[tuple[int, int]]:
    """`aligned_words` of a line in parts, counted through the line; a word may go over the end of a part.

    Args:
        weights: of each part.
        words: of the source and the translation of each part; see `words_of`.
        gaps: between each part and the next.
    """
    pairs: list[tuple[int, int]] = []
    before = [0, 0]
    for own, sides, gap in zip(weights, words, gaps, strict=True):
        pairs += [(before[0] + source, before[1] + target) for source, target in aligned_words(own, *sides)]
        before = [count + max(num_words(side) - (gap == ""), 0) for count, side in zip(before, sides, strict=True)]
    return pairs


def _membership(words: Sequence[int]) -> Float[np.ndarray, "N M"]:
    """1 where a piece belongs to a word."""
    return (np.asarray(words)[:, None] == np.arange(num_words(words))).astype(float)


def pharaoh(pairs: Sequence[tuple[int, int]]) -> str:
    """The pairs as source-translation, separated by spaces."""
    return " ".join(f"{source}-{target}" for source, target in pairs)
