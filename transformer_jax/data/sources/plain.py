"""Plain text from files."""

import itertools
from collections.abc import Callable, Iterator

from transformer_jax.config import PlainText
from transformer_jax.config.sources import Files
from transformer_jax.data.sources.reading import lines, paths
from transformer_jax.data.sources.source import Example


def read_plain(data: PlainText, files: Files) -> Iterator[Example]:
    """The texts of files: of each the lines, the paragraphs between blank lines, or all of it.

    Raises:
        InputError: on a file that is missing, and broken compression or UTF-8.
    """
    for path in paths(data.dir, files):
        for text in _UNITS[data.unit](lines(path)):
            yield None, text


def _paragraphs(texts: Iterator[str]) -> Iterator[str]:
    for filled, paragraph in itertools.groupby(texts, key=lambda line: bool(line.strip())):
        if filled:
            yield "\n".join(paragraph)


def _whole(texts: Iterator[str]) -> Iterator[str]:
    yield "\n".join(texts)


_UNITS: dict[str, Callable[[Iterator[str]], Iterator[str]]] = {"line": iter, "paragraph": _paragraphs, "file": _whole}
