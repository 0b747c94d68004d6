"""A line to be translated, and what became of it."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Line:
    """A line to be translated, and what its translation must contain."""

    text: str
    prefix: str = ""  # what the translation begins with
    required: Sequence[str] = ()  # words and phrases that stand in it
    forbidden: Sequence[str] = ()  # words and phrases that do not


@dataclasses.dataclass(frozen=True)
class Part:
    """What was translated at once: a line, or a part of one that was too long."""

    source: Sequence[int]  # ids, the end token last
    target: Sequence[int]  # ids, the end token last unless the limit came first; none where there is no translation
    gap: str = ""  # between this part and the next


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One translation of a line."""

    text: str
    score: float  # what it is ranked by
    log_prob: float  # the model's own, over all its tokens
    parts: tuple[Part, ...] = ()  # one, or those of a line that was split, in order
    warnings: tuple[str, ...] = ()  # what the user should know about it

    @property
    def num_tokens(self) -> int:
        """Tokens of the translation, end tokens included."""
        return sum(len(part.target) for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Translation:
    """What became of a line."""

    source: str
    hypotheses: tuple[Hypothesis, ...]  # best first; of sampling, as they were drawn
    of_line: tuple[str, ...] = ()  # what the user should know about the line, whichever hypothesis is taken

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the line and its hypotheses, each once."""
        return (*self.of_line, *dict.fromkeys(warning for own in self.hypotheses for warning in own.warnings))

    @property
    def best_warnings(self) -> tuple[str, ...]:
        """What the user should know about the line and its best translation."""
        return (*self.of_line, *(warning for own in self.hypotheses[:1] for warning in own.warnings))

    @property
    def text(self) -> str:
        """The best translation; empty where there is none."""
        return self.hypotheses[0].text if self.hypotheses else ""
