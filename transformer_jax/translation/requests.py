"""What is decoded for a line."""

import functools
import itertools
from collections.abc import Iterator, Sequence

from transformer_jax.data.tokenizer import Tokenizers, is_text
from transformer_jax.decoding import Edge
from transformer_jax.errors import InputError
from transformer_jax.translation.results import Line
from transformer_jax.translation.shapes import Request
from transformer_jax.translation.spelling import Spelling
from transformer_jax.translation.splitting import SourcePart, Splitter


class Requests:
    """Makes requests of lines, with what their translations must and must not contain in ids."""

    def __init__(self, tokenizers: Tokenizers, positions: int, longest: int) -> None:
        """A maker of requests.

        Args:
            tokenizers: of both sides.
            positions: tokens of a translation at most.
            longest: source tokens translated at once.
        """
        self._target, self.positions, self.longest = tokenizers.target, positions, longest
        self._splitter = Splitter(tokenizers.source, longest)
        self.spelling = Spelling(tokenizers.target)
        self.forbidden = functools.lru_cache(1024)(self._forbidden)

    def of(self, lines: Sequence[Line], first: int) -> tuple[list[list[tuple[SourcePart, Request]]], InputError | None]:
        """The parts of each line with their requests, up to the first line with a mistake, and that mistake.

        Args:
            lines: the lines.
            first: the number of the first one, counted from 0.
        """
        made: list[list[tuple[SourcePart, Request]]] = []
        texts = list(itertools.takewhile(is_text, (line.text for line in lines)))
        try:
            for number, (line, parts) in enumerate(zip(lines, self._splitter.of(texts), strict=False), start=first):
                made.append(list(self._of_line(line, parts, number)))
            if len(texts) < len(lines):
                raise InputError(f"line {first + len(texts) + 1}: no text, but half of a surrogate pair")
        except InputError as error:
            return made, error
        return made, None

    def _of_line(self, line: Line, parts: Sequence[SourcePart], number: int) -> Iterator[tuple[SourcePart, Request]]:
        """A request for each part; a prefix belongs to the first."""
        required = [self._encode(phrase, number) for phrase in dict.fromkeys(line.required) if phrase.strip()]
        if required and len(parts) > 1:
            raise InputError(
                f"line {number + 1} is translated in {len(parts)} parts, and it is unknown in which of them "
                f"{line.required[0]!r} should stand; split the line"
            )
        forbidden = self.forbidden(tuple(line.forbidden))
        for place, part in enumerate(parts):
            given = self._encode(line.prefix, number) if line.prefix.strip() and place == 0 else []
            prefix = [*self._target.special.before, *given]
            least = len(prefix) + sum(map(len, required)) + 1
            if least > self.positions:
                raise InputError(
                    f"line {number + 1}: its prefix and phrases take {least} tokens, "
                    f"but the model has max_positions={self.positions}"
                )
            yield part, Request(part.ids, number, place, prefix, required, forbidden)

    def _forbidden(self, texts: tuple[str, ...]) -> list[list[Edge]]:
        """All ways to write words and phrases that must not appear."""
        ways = map(self.spelling.edges, dict.fromkeys(texts))
        return [edges for edges in ways if edges]

    def _encode(self, text: str, number: int) -> list[int]:
        if not is_text(text):
            raise InputError(f"line {number + 1}: {text!r}: no text, but half of a surrogate pair")
        (ids,) = self._target.encode([text])
        if not ids or not self._target.knows(ids):
            raise InputError(f"line {number + 1}: {text!r} cannot be written with the pieces of the vocabulary")
        return ids
