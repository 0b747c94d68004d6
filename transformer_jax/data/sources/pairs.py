"""Pairs of strings, and what identifies them."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Aligned sentences: target i translates source i; `groups` labels each pair, for scores by group.

    Without sources they are plain texts.
    """

    sources: Sequence[str] | None
    targets: Sequence[str]
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @functools.cached_property
    def digest(self) -> str:
        """The identity of the content, wherever it came from: a sha256 in hex."""
        digest = hashlib.sha256()
        for texts in (self.sources or (), self.targets, self.groups or ()):
            digest.update(b"%d;" % len(texts))
            for text in texts:
                data = text.encode()
                digest.update(b"%d:%b" % (len(data), data))  # the length, so that no two lists look alike
        return digest.hexdigest()
