"""Pairs from aligned text files, fetched where the experiment says so."""

import hashlib
import http.client
import itertools
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from transformer_jax.config import TextFiles
from transformer_jax.data.sources.reading import lines, names, opening
from transformer_jax.data.sources.source import Example
from transformer_jax.errors import InputError
from transformer_jax.files import digest_of, written_whole

_TIMEOUT = 60  # seconds without an answer


def read_text(data: TextFiles, files: tuple[str, ...]) -> Iterator[Example]:
    """The pairs of aligned files: line i of a source file is translated by line i of the target file behind it.

    Raises:
        InputError: on a file that is missing and cannot be fetched, another digest than the experiment lists, broken
            compression or UTF-8, unequal line counts, and patterns of both sides that fit unequally many files.
    """
    for source, target in zip(files[::2], files[1::2], strict=True):
        found = names(data.dir, source), names(data.dir, target)
        if len(found[0]) != len(found[1]):
            raise InputError(
                f"{Path(data.dir, source)} fits {len(found[0])} files, {Path(data.dir, target)} {len(found[1])}: "
                "patterns of aligned files fit as many as each other"
            )
        for pair in zip(*found, strict=True):
            yield from _aligned([_available(data, name) for name in pair])


def _aligned(paths: list[Path]) -> Iterator[Example]:
    sides = [lines(path) for path in paths]
    for number, (source, target) in enumerate(itertools.zip_longest(*sides), start=1):
        if source is None or target is None:
            longer = number + sum(1 for side in sides for _ in side)
            counts = (number - 1, longer) if source is None else (longer, number - 1)
            raise InputError(
                f"{paths[0]} has {counts[0]} lines, {paths[1]} has {counts[1]}: "
                "aligned files have as many as each other"
            )
        yield source, target


def _available(data: TextFiles, name: str) -> Path:
    """The path of a file, which has the content that the experiment lists for it, if any."""
    path = Path(data.dir) / name
    if not path.exists() and data.url is not None:
        _fetch(data.url, name, path, data)
    elif name in dict(data.sha256):
        with opening(path):
            found = digest_of(path)
        _check_digest(found, name, str(path), data)
    return path


def _check_digest(found: str, name: str, place: str, data: TextFiles) -> None:
    expected = dict(data.sha256).get(name)
    if expected is not None and found != expected.lower():
        raise InputError(
            f"{place}: sha256 {found}, but data.sha256 expects {expected}; give the file the experiment means"
        )


def _fetch(url: str, name: str, path: Path, data: TextFiles) -> None:
    """Keeps url/name at `path` once it is whole and right."""
    address = f"{url.rstrip('/')}/{name}"
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:
            content = response.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise InputError(
            f"{name} is not in {path.parent.absolute()}, and fetching {address} failed ({error}); "
            "give the folder that has it with --data.dir"
        ) from None
    _check_digest(hashlib.sha256(content).hexdigest(), name, address, data)
    with written_whole(path, "give another folder with --data.dir") as temporary:
        temporary.write_bytes(content)
