"""What a tokenizer is, whichever library reads its files."""

import abc
import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Int

from transformer_jax.errors import InputError

SPACE = "\u2581"  # stands in pieces for the space before a word
_MASK = re.compile(r"<(?:mask|extra_id)_(\d+)>|<mask>|\[MASK\]")  # what stands for masked text, in all vocabularies


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """The ids that are no text, and what stands around every sentence: `before`, the sentence, `eos`, `behind`."""

    pad: int
    eos: int
    unk: int | None  # None where every text can be written
    start: int  # what the decoder reads first
    before: tuple[int, ...] = ()  # the code of the language, say
    behind: tuple[int, ...] = ()
    others: tuple[int, ...] = ()  # that write nothing either: other languages, a mask

    @property
    def marks(self) -> frozenset[int]:
        """Those that stand around sentences, or start one."""
        return frozenset({self.pad, self.eos, self.start, *self.before, *self.behind})

    @property
    def silent(self) -> frozenset[int]:
        """Those that write nothing."""
        return self.marks | frozenset(self.others)

    @property
    def frames(self) -> int:
        """How many stand around a sentence."""
        return len(self.before) + 1 + len(self.behind)

    def frame(self, ids: Int[np.ndarray, " T"]) -> Int[np.ndarray, " U"]:
        """The ids of a sentence with what stands around it."""
        start, end = len(self.before), len(self.before) + len(ids)
        framed = np.empty(len(ids) + self.frames, np.int32)
        framed[:start], framed[start:end], framed[end], framed[end + 1 :] = self.before, ids, self.eos, self.behind
        return framed


class Tokenizer(abc.ABC):
    """Texts to ids and back.

    Attributes:
        special: its special tokens.
    """

    special: SpecialTokens

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """The identity of this tokenizer, in hex."""

    @abc.abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without what stands around them; of a blank text none.

        Raises:
            InputError: on what is no text.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[Iterable[SupportsIndex]]) -> list[str]:
        """The text of each sequence of ids; special ones but the unknown one write nothing."""

    @abc.abstractmethod
    def pieces(self, ids: Iterable[SupportsIndex]) -> list[str]:
        """The piece of each id, where U+2581 marks the start of a word."""

    def framed(self, ids: Iterable[int]) -> list[int]:
        """The ids of a sentence with what stands around it."""
        return [*self.special.before, *ids, self.special.eos, *self.special.behind]

    def knows(self, ids: Iterable[int]) -> bool:
        """Whether none of these ids stands for what the vocabulary cannot write."""
        return self.special.unk is None or self.special.unk not in ids

    def surfaces(self, ids: Iterable[SupportsIndex], *, written: bool = True) -> list[str]:
        """What each of these ids writes, spaces included.

        Args:
            ids: of a sentence.
            written: whether the unknown one is a text of its own, with spaces around it, as it is written. In a text
                that was read, it stands for characters of which no more is known.
        """
        tokens = list(map(int, ids))
        special: dict[int | None, str] = dict.fromkeys(self.special.silent, "")
        special[self.special.unk] = " \u2047 " if written else "\u2047"
        return [
            special.get(token, piece.replace(SPACE, " "))
            for token, piece in zip(tokens, self.pieces(tokens), strict=True)
        ]

    def ids_of(self, words: Iterable[str]) -> list[int]:
        """The pieces that write these words; of a mark, such as a comma, also the one without a space before it.

        Raises:
            InputError: naming a word that the vocabulary cannot write.
        """
        found = set[int]()
        for word in words:
            (ids,) = self.encode([word])
            if not self.knows(ids):
                raise InputError(f"{word!r} cannot be written with the pieces of the vocabulary")
            found.update(ids)
            if not any(map(str.isalnum, word)):
                found.update(self.written[mark] for mark in word.split() if mark in self.written)
        return sorted(found)

    @functools.cached_property
    def masks(self) -> tuple[int, ...]:
        """The ids that stand for masked text, in the order of their numbers."""
        found = ((_MASK.fullmatch(piece), token) for token, piece in enumerate(self.pieces(range(self.vocab_size))))
        return tuple(token for _, token in sorted((int(match[1] or 0), token) for match, token in found if match))

    @functools.cached_property
    def starts(self) -> Bool[np.ndarray, " V"]:
        """Which pieces begin a word."""
        return np.array([piece.startswith(SPACE) for piece in self.pieces(range(self.vocab_size))])

    @functools.cached_property
    def words(self) -> Int[np.ndarray, " words"]:
        """The ids of pieces that write text."""
        return np.array(sorted(self.written.values()), np.int32)

    @functools.cached_property
    def written(self) -> dict[str, int]:
        """The id of every piece that writes text."""
        ids = [token for token in range(self.vocab_size) if token not in self.special.silent | {self.special.unk}]
        return {piece: token for piece, token in zip(self.pieces(ids), ids, strict=True) if piece}


def is_text(text: str) -> bool:
    """Whether a string has an encoding: half of a surrogate pair has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_texts(texts: Iterable[str]) -> None:
    """Checks that all of them are text.

    Raises:
        InputError: naming the first that is not.
    """
    for text in texts:
        if not is_text(text):
            raise InputError(f"{text!r}: no text, but half of a surrogate pair")
