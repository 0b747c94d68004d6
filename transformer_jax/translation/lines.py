"""Lines out of a stream of bytes, as they arrive, and what is written for each of them."""

import codecs
import gzip
import io
import select
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from transformer_jax.errors import InputError

Invalid = Literal["error", "replace"]

_AT_ONCE = 1 << 20  # bytes


def open_lines(path: Path) -> io.BufferedIOBase:
    """A file of lines, plain or .gz.

    Raises:
        InputError: when it cannot be opened.
    """
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def arriving(stream: io.BufferedIOBase, name: str, most: int, invalid: Invalid = "error") -> Iterator[list[str]]:
    """Lines in UTF-8, so many at once as there are when the next are asked for.

    Only line feeds end a line; a carriage return before one belongs to it, other separators of Unicode to the text. A
    byte order mark at the beginning is left out. What is before invalid bytes comes before the error.

    Args:
        stream: the bytes.
        name: of the stream, for messages.
        most: lines at once.
        invalid: what happens to bytes that are no UTF-8: an error, or U+FFFD in their place.

    Raises:
        InputError: on bytes that are no UTF-8, by line and byte, both counted from 1, and on broken gzip.
    """
    number, held = 0, b""
    for chunk in _chunks(stream, name):
        *ended, held = (held + chunk).split(b"\n") if chunk else (held, b"")
        if not chunk and not ended[0]:
            return
        for start in range(0, len(ended), most):
            lines: list[str] = []
            for raw in ended[start : start + most]:
                number += 1
                try:
                    lines.append(_text(raw, name, number, invalid))
                except InputError:
                    if lines:
                        yield lines
                    raise
            yield lines


def all_lines(path: Path) -> list[str]:
    """The lines of a file, plain or .gz.

    Raises:
        InputError: when it cannot be read, or is no UTF-8.
    """
    with open_lines(path) as file:
        return [line for lines in arriving(file, str(path), 1024) for line in lines]


def _chunks(stream: io.BufferedIOBase, name: str) -> Iterator[bytes]:
    """Whole megabytes, or what there is by now; an empty one last, for a line without an end."""
    read = getattr(stream, "read1", stream.read)
    while True:
        parts = [_read(read, name)]
        while parts[-1] and sum(map(len, parts)) < _AT_ONCE and _is_ready(stream):
            parts.append(_read(read, name))
        if parts[0]:
            yield b"".join(parts)
        if not parts[-1]:
            yield b""
            return


def _read(read: Callable[[int], bytes], name: str) -> bytes:
    try:
        return read(_AT_ONCE)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}: broken gzip: {error}") from None


def _is_ready(stream: io.BufferedIOBase) -> bool:
    """Whether the next read comes back at once."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError, TypeError):  # no file of the system: its bytes are all there
        return True


def _text(raw: bytes, name: str, number: int, invalid: Invalid) -> str:
    mark = len(codecs.BOM_UTF8) if number == 1 and raw.startswith(codecs.BOM_UTF8) else 0
    try:
        return raw[mark:].removesuffix(b"\r").decode("utf-8", "replace" if invalid == "replace" else "strict")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, line {number}, byte {mark + error.start + 1}: invalid UTF-8: {error.reason}"
        ) from None
