"""What is decoded for a line."""

import functools
from collections.abc import Iterator, Sequence

from transformer_jax.data.tokenizer import Tokenizer, is_text
from transformer_jax.decoding import Edge
from transformer_jax.errors import InputError
from transformer_jax.translation.results import Line
from transformer_jax.translation.shapes import Request
from transformer_jax.translation.spelling import Spelling


class Requests:
    """Makes requests of lines, with what their translations must and must not contain in ids."""

    def __init__(self, target: Tokenizer, positions: int) -> None:
        """A maker of requests.

        Args:
            target: the tokenizer of translations.
            positions: tokens of one at most.
        """
        self._target, self._positions = target, positions
        self.spelling = Spelling(target)
        self.forbidden = functools.lru_cache(1024)(self._forbidden)

    def of(self, line: Line, ids: Sequence[Sequence[int]], number: int) -> Iterator[Request]:
        """A request for each part of a line; a prefix belongs to the first.

        Args:
            line: the line.
            ids: of each of its parts.
            number: of the line, counted from 0.

        Raises:
            InputError: when a prefix or a phrase cannot be written, or does not fit.
        """
        required = [self._encode(phrase, number) for phrase in dict.fromkeys(line.required) if phrase.strip()]
        if required and len(ids) > 1:
            raise InputError(
                f"line {number + 1} is translated in {len(ids)} parts, and it is unknown in which of them "
                f"{line.required[0]!r} should stand; split the line"
            )
        forbidden = self.forbidden(tuple(line.forbidden))
        for place, source in enumerate(ids):
            given = self._encode(line.prefix, number) if line.prefix.strip() and place == 0 else []
            prefix = [*self._target.special.before, *given]
            request = Request(source, number, place, prefix, required, forbidden)
            least = len(prefix) + sum(map(len, required)) + 1
            if least > self._positions:
                raise InputError(
                    f"line {number + 1}: its prefix and phrases take {least} tokens, "
                    f"but the model has max_positions={self._positions}"
                )
            yield request

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
