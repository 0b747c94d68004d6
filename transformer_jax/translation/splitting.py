"""Lines that are longer than a model takes, into parts that it does, and nothing lost."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from transformer_jax.data.tokenizer import Tokenizer

# Where a line is split, the first choice first: behind the end of a sentence, a clause, a word. Chinese and Japanese
# put no space behind theirs.
_PLACES = tuple(
    re.compile(pattern)
    for pattern in (r"(?<=[.!?…؟।])[\"'»”’)\]]*\s+|(?<=[。！？])", r"(?<=[,;:،—–])\s+|(?<=[、；：，])", r"\s+")
)
_JOINERS = "\u200d\ufe0e\ufe0f"  # zero width joiner, variation selectors: what they stand between belongs together


class SourcePart(NamedTuple):
    """What of a line is translated at once."""

    text: str
    ids: list[int]  # the end token last


class Splitter:
    """Splits lines by what their tokens are."""

    def __init__(self, source: Tokenizer, longest: int) -> None:
        """A splitter.

        Args:
            source: the tokenizer of lines.
            longest: tokens of a part at most, with what stands around them.
        """
        self._source, self._room = source, longest - len(source.framed([]))

    def of(self, texts: Sequence[str]) -> list[list[SourcePart]]:
        """The parts of each line; of a blank one there are none."""
        return [self._parts(text, ids) for text, ids in zip(texts, self._source.encode(texts), strict=True)]

    def _parts(self, text: str, ids: Sequence[int]) -> list[SourcePart]:
        encode, framed = self._source.encode, self._source.framed
        if len(ids) <= self._room:
            return [SourcePart(text, framed(ids))] if ids else []
        parts = split(text, lambda pieces: [len(own) for own in encode(pieces)], self._room)
        return [SourcePart(part, framed(own)) for part, own in zip(parts, encode(parts), strict=True)]


def split(text: str, lengths: Callable[[Sequence[str]], Sequence[int]], longest: int) -> list[str]:
    """Parts of at most `longest` tokens that make up the text again, white space behind a part being its own.

    A part that is no token at all goes with its neighbour. One character alone may be more than `longest`.

    Args:
        text: the line.
        lengths: the number of tokens of each of some texts.
        longest: tokens of a part at most.
    """
    parts = _fitting(text, lengths, longest, longest)
    return _something(parts, lengths(parts))


def _fitting(text: str, lengths: Callable[[Sequence[str]], Sequence[int]], longest: int, room: int) -> list[str]:
    """Parts that are measured once more as they are: joined pieces may be more tokens than the pieces were."""
    parts = _split(text, lengths, room, _PLACES)
    fitting: list[str] = []
    for part, length in zip(parts, lengths(parts), strict=True):
        if length <= longest or len(part) == 1 or (room == 1 and part == text):
            fitting.append(part)
        else:
            fitting += _fitting(part, lengths, longest, max(room - (length - longest), 1))
    return fitting


def _something(parts: Sequence[str], lengths: Sequence[int]) -> list[str]:
    """The parts, those of no token joined to the one before, or behind where they come first."""
    joined, empty = [], ""
    for part, length in zip(parts, lengths, strict=True):
        if length:
            joined.append(empty + part)
            empty = ""
        elif joined:
            joined[-1] += part
        else:
            empty += part
    return joined or [empty for _ in parts[:1]]


def _split(
    text: str, lengths: Callable[[Sequence[str]], Sequence[int]], longest: int, places: Sequence[re.Pattern[str]]
) -> list[str]:
    pieces = _cut(text, places[0]) if places else _halves(text)
    parts, room = [""], longest
    for piece, length in zip(pieces, lengths(pieces), strict=True):
        if length > longest and len(piece) > 1:
            parts, room = [*parts, *_split(piece, lengths, longest, places[1:]), ""], longest
        elif length <= room:
            parts[-1], room = parts[-1] + piece, room - length
        else:
            parts, room = [*parts, piece], longest - length
    return [part for part in parts if part]


def _cut(text: str, place: re.Pattern[str]) -> list[str]:
    """The pieces between matches; what matches goes with the piece before it."""
    ends = [match.end() for match in place.finditer(text) if 0 < match.end() < len(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _halves(text: str) -> list[str]:
    """Two pieces, not cut within a character and its marks if that can be."""
    middle = len(text) // 2
    for place in range(middle, len(text)):
        if not (unicodedata.combining(text[place]) or text[place] in _JOINERS or text[place - 1] in _JOINERS):
            return [text[:place], text[place:]]
    return [text[:middle], text[middle:]]
