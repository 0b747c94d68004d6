"""Pairs of strings, and what identifies them."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence

from transformer_jax.data.sources.source import Example


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Aligned sentences: target i translates source i; `groups` labels each pair, for scores by group.

    Plain text has no sources, None; its texts are the targets.
    """

    sources: Sequence[str] | None
    targets: Sequence[str]
    groups: Sequence[str] | None = None

    @classmethod
    def of(cls, examples: Iterable[Example], groups: Sequence[str] | None = None) -> "Pairs":
        """All examples of a source, held in memory; those of plain text all have the source None."""
        sources: list[str] = []
        targets: list[str] = []
        for source, target in examples:
            targets.append(target)
            if source is not None:
                sources.append(source)
        return cls(None if len(sources) < len(targets) else sources, targets, groups)

    def __len__(self) -> int:
        return len(self.targets)

    def examples(self) -> Iterator[Example]:
        """The pairs one by one."""
        if self.sources is None:
            return ((None, target) for target in self.targets)
        return zip(self.sources, self.targets, strict=True)

    @functools.cached_property
    def digest(self) -> str:
        """The identity of the content, wherever it came from: a sha256 in hex."""
        digest = hashlib.sha256(b"plain;" if self.sources is None else b"")
        for texts in (self.sources or (), self.targets, self.groups or ()):
            digest.update(b"%d;" % len(texts))
            for text in texts:
                data = text.encode()
                digest.update(b"%d:%b" % (len(data), data))  # the length, so that no two lists look alike
        return digest.hexdigest()
