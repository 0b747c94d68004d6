"""What a source of examples is: the one protocol behind all kinds of data."""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

Split: TypeAlias = Literal["train", "validation", "test"]

Example: TypeAlias = tuple[str | None, str]  # source and target; the source of plain text is None


@runtime_checkable
class Source(Protocol):
    """Where examples come from. A class with this method, named by `OwnData`, is all that data of your own needs."""

    def pairs(self, split: Split) -> Iterable[Example] | None:
        """The examples of a split, the same in the same order each time; None where there is no such split."""


@runtime_checkable
class Grouped(Source, Protocol):
    """A source whose examples have labels, for scores by group."""

    def groups(self, split: Split) -> Sequence[str] | None:
        """A label for each example of a split; None where there are none after all."""
