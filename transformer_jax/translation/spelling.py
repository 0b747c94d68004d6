"""How texts come about from the pieces of a vocabulary."""

import functools
import unicodedata

import numpy as np
from jaxtyping import Bool

from transformer_jax.data.tokenizer import UNK_ID, Tokenizer
from transformer_jax.decoding.paths import ANYWHERE, DONE, START, Edge


class Spelling:
    """Finds all ways to write a text in pieces, as edges between its characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Of the pieces of a tokenizer."""
        self._tokenizer = tokenizer
        ids = range(UNK_ID + 1, tokenizer.vocab_size)
        self._pieces = dict(zip(tokenizer.pieces(ids), ids, strict=True))
        self.starts: Bool[np.ndarray, " V"] = np.ones(tokenizer.vocab_size, bool)  # where a word may begin behind it
        self.starts[list(ids)] = [not _in_word(piece[-1]) for piece in self._pieces]

    @functools.cached_property
    def _tails(self) -> dict[str, list[tuple[int, bool]]]:
        """What stands in pieces behind their first characters: the pieces, and whether a word begins there."""
        found: dict[str, list[tuple[int, bool]]] = {}
        for piece, token in self._pieces.items():
            for place in range(1, len(piece)):
                found.setdefault(piece[place:], []).append((token, not _in_word(piece[place - 1])))
        return found

    @functools.cache  # noqa: B019  # as long as there is the translator
    def edges(self, text: str) -> list[Edge]:
        """The ways to write a text where it begins a word; of none that the vocabulary cannot write, or that is blank.

        A word begins at the beginning, behind a space and behind any mark; a mark anywhere. Pieces that go on behind
        the text count only where another word begins there: `Hund` is not in `Hunde`, where that is one piece.
        """
        (ids,) = self._tokenizer.encode([text])
        surface = "".join(self._tokenizer.pieces(ids))[1:]  # without the space that SentencePiece puts first
        if not surface or not self._tokenizer.knows(ids):
            return []
        anywhere = not _in_word(surface[0])
        found = set[Edge]()
        for place in range(len(surface)):
            source = place or (ANYWHERE if anywhere else START)
            found.update(
                Edge(source, self._pieces[piece], target)
                for piece, target in _going_on(surface, place)
                if piece in self._pieces
            )
            found.update(
                Edge(source, token, DONE)
                for piece, token in self._pieces.items()
                if _ends_within(surface, place, piece)
            )
        for tail, target in _going_on(surface, 0):
            found.update(
                Edge(ANYWHERE, token, target) for token, begins in self._tails.get(tail, ()) if begins or anywhere
            )
        for tail, tokens in self._tails.items():
            if _ends_within(surface, 0, tail):
                found.update(Edge(ANYWHERE, token, DONE) for token, begins in tokens if begins or anywhere)
        return sorted(found)


def _going_on(surface: str, place: int) -> list[tuple[str, int]]:
    """The parts of a text from a place on, and where each leads."""
    ends = range(place + 1, len(surface) + 1)
    return [(surface[place:end], end if end < len(surface) else DONE) for end in ends]


def _ends_within(surface: str, place: int, piece: str) -> bool:
    """Whether the rest of a text ends within a piece, where no word goes on."""
    rest = len(surface) - place
    if len(piece) <= rest or not piece.startswith(surface[place:]):
        return False
    return not (_in_word(surface[-1]) and _in_word(piece[rest]))


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")
