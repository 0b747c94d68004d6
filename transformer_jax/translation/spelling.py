"""How texts come about from the pieces of a vocabulary."""

import bisect
import functools
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from transformer_jax.data.tokenizer import SPACE, Tokenizer
from transformer_jax.decoding.forbidden import ANYWHERE, DONE, START, Edge
from transformer_jax.errors import InputError

_NO_SPACES = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
)  # scripts, by the names of their letters


class Spelling:
    """Finds all ways to write a text in pieces, as edges between its characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Of the pieces of a tokenizer."""
        self._tokenizer = tokenizer
        self._pieces = tokenizer.written
        self._sorted = sorted(self._pieces)
        self.starts: Bool[np.ndarray, " V"] = np.ones(tokenizer.vocab_size, bool)  # where a word may begin behind it
        self.starts[list(self._pieces.values())] = [not _in_word(piece[-1]) for piece in self._pieces]
        self.edges = functools.lru_cache(4096)(self._edges)

    @functools.cached_property
    def _tails(self) -> dict[str, list[tuple[int, bool]]]:
        """What stands in pieces behind their first characters: the pieces, and whether a word begins there."""
        found: dict[str, list[tuple[int, bool]]] = {}
        for piece, token in self._pieces.items():
            for place in range(1, len(piece)):
                found.setdefault(piece[place:], []).append((token, not _in_word(piece[place - 1])))
        return found

    @functools.cached_property
    def _sorted_tails(self) -> list[str]:
        return sorted(self._tails)

    def _edges(self, text: str) -> list[Edge]:
        """The ways to write a text where it begins a word; of none that the vocabulary cannot write, or that is blank.

        A word begins at the beginning, behind a space, behind any mark and, in scripts without spaces, anywhere; a mark
        too. Pieces that go on behind the text count only where another word begins there: `Hund` is not in `Hunde`,
        where no piece ends with it.
        """
        (ids,) = self._tokenizer.encode([text])
        surface = "".join(self._tokenizer.pieces(ids)).removeprefix(SPACE)  # which SentencePiece puts first
        if not surface or not self._tokenizer.knows(ids):
            return []
        anywhere = not _in_word(surface[0])
        found = set[Edge]()
        for place in range(len(surface)):
            source = place or (ANYWHERE if anywhere else START)
            ways = _ways(surface, place, self._sorted)
            found.update(Edge(source, self._pieces[piece], target) for piece, target in ways if piece in self._pieces)
        for tail, target in _ways(surface, 0, self._sorted_tails):
            tokens = self._tails.get(tail, ())
            found.update(Edge(ANYWHERE, token, target) for token, begins in tokens if begins or anywhere)
        return sorted(found)


def allowed_tokens(target: Tokenizer, words: Iterable[str]) -> Bool[np.ndarray, " V"]:
    """The tokens that write these words, and those that stand around every sentence."""
    ids = target.ids_of(words)
    if not ids:
        raise InputError("the vocabulary has no words: translations would be empty")
    allowed = np.zeros(target.vocab_size, bool)
    allowed[target.framed(ids)] = True
    return allowed


def _ways(surface: str, place: int, known: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The parts of a text from a place on, and where each leads; and of those known, what goes on behind its end."""
    for end in range(place + 1, len(surface) + 1):
        yield surface[place:end], end if end < len(surface) else DONE
    rest = surface[place:]
    for longer in itertools.islice(known, bisect.bisect_right(known, rest), None):
        if not longer.startswith(rest):
            return
        if not (_in_word(rest[-1]) and _in_word(longer[len(rest)])):
            yield longer, DONE


def _in_word(character: str) -> bool:
    """Whether a character and one beside it may be of one word."""
    within = character.isalnum() or unicodedata.category(character).startswith("M")
    return within and not unicodedata.name(character, "").startswith(_NO_SPACES)
