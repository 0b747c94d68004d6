"""Words of a source and its translation that belong together, by attention."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_WRITTEN = {"<unk>": " \u2047 ", "</s>": ""}  # special pieces in a text


def words_of(pieces: Sequence[str]) -> list[int]:
    """The word of the text that each piece belongs to, counted from 0; -1 for white space and the end token.

    Args:
        pieces: those of a whole text, with or without the end token.
    """
    words, word, inside = [], -1, False
    for piece in pieces:
        own = -1
        for character in _WRITTEN.get(piece, piece.replace("\u2581", " ")):
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


def _membership(words: Sequence[int]) -> Float[np.ndarray, "N M"]:
    """1 where a piece belongs to a word."""
    return (np.asarray(words)[:, None] == np.arange(num_words(words))).astype(float)


def pharaoh(pairs: Sequence[tuple[int, int]]) -> str:
    """The pairs as source-translation, separated by spaces."""
    return " ".join(f"{source}-{target}" for source, target in pairs)
