"""The translation of a line from the outputs of its parts."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence

from transformer_jax.data.tokenizer import Tokenizer
from transformer_jax.translation.engine import Output
from transformer_jax.translation.results import Hypothesis, Line, Part, Translation
from transformer_jax.translation.splitting import SourcePart

_NO_OUTPUT = Output([], -math.inf, -math.inf)


class Joiner:
    """Joins outputs to translations, with warnings of what the user should know."""

    def __init__(self, target: Tokenizer, longest: int) -> None:
        """A joiner.

        Args:
            target: the tokenizer of translations.
            longest: source tokens translated at once.
        """
        self._target, self._longest = target, longest

    def join(self, line: Line, parts: Sequence[SourcePart], outputs: Sequence[list[Output]]) -> Translation:
        """The translation of a line from the outputs of each of its parts, best first."""
        if not parts:
            asked = line.prefix.strip() or any(phrase.strip() for phrase in line.required)
            warnings = ("blank, and stays so: what its translation must contain is not there",) if asked else ()
            return Translation(line.text, (Hypothesis("", 0.0, 0.0),), warnings)
        best = zip(*(own or [_NO_OUTPUT] for own in outputs), strict=False)  # the n-th of every part
        hypotheses = tuple(self._hypothesis(line, parts, chosen) for chosen in best) if any(outputs) else ()
        return Translation(line.text, hypotheses, tuple(self._warnings(outputs)))

    def _hypothesis(self, line: Line, parts: Sequence[SourcePart], outputs: Sequence[Output]) -> Hypothesis:
        decoded = self._target.decode(output.tokens for output in outputs)
        gaps = [" " if part.text[-1].isspace() else "" for part in parts]
        text = "".join(itertools.chain.from_iterable(zip(decoded, gaps, strict=True))).strip()
        text = " ".join(text.splitlines())  # an output is one line, whatever its pieces are
        return Hypothesis(
            text=text,
            score=sum(output.score for output in outputs),
            log_prob=sum(output.log_prob for output in outputs),
            parts=tuple(map(Part, (part.ids for part in parts), (output.tokens for output in outputs), gaps)),
            warnings=(*_cuts(outputs, self._target.special.eos), *_seams(line, text)),
        )

    def _warnings(self, outputs: Sequence[list[Output]]) -> Iterator[str]:
        if len(outputs) > 1:
            yield f"longer than the {self._longest} tokens read at once: translated in {len(outputs)} parts"
        if not all(outputs):
            yield "no translation satisfies its constraints, or the model's numbers are not finite"


def _cuts(outputs: Sequence[Output], eos_id: int) -> Iterator[str]:
    for output in outputs:
        if output.tokens and output.tokens[-1] != eos_id:
            yield f"its translation does not end within {len(output.tokens)} tokens, and is cut there"


def _seams(line: Line, text: str) -> Iterator[str]:
    """What is forbidden in every part, and stands across two of them, or with more than one space."""
    for phrase in filter(str.strip, line.forbidden):
        words = r"\s+".join(map(re.escape, phrase.split()))
        if re.search(rf"(?<!\w){words}(?!\w)", text):
            yield f"{phrase!r} is forbidden, and stands where parts of its translation meet"
