"""Files of text: found by name or by pattern, unpacked by their suffix, read line by line."""

import bz2
import contextlib
import glob
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from transformer_jax.config.sources import Files
from transformer_jax.errors import InputError
from transformer_jax.extras import load_extra

_CHUNK = 64 * 1024  # bytes read at once
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Format(NamedTuple):
    name: str
    decompressor: Callable[[], Any]  # of one stream, of which a file may hold several


def _zstandard() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.ZstdDecompressor()
    return load_extra("zstandard", "zstd", "a file that ends in .zst").ZstdDecompressor().decompressobj()


_FORMATS = {
    ".gz": _Format("gzip", lambda: zlib.decompressobj(zlib.MAX_WBITS + 16)),  # 16: with header and checksum of gzip
    ".bz2": _Format("bzip2", bz2.BZ2Decompressor),
    ".xz": _Format("xz", lzma.LZMADecompressor),
    ".zst": _Format("zstd", _zstandard),
}


class _BrokenError(Exception):
    """A compressed file that is damaged or ends too early."""


def names(folder: str, pattern: str) -> list[str]:
    """The files in a folder that a pattern fits, in alphabetical order; a name without *, ? and [ is itself.

    Raises:
        InputError: on a pattern that fits no file.
    """
    if not set("*?[") & set(pattern) or Path(folder, pattern).is_file():
        return [pattern]
    found = sorted(name for name in glob.glob(pattern, root_dir=folder, recursive=True) if Path(folder, name).is_file())
    if not found:
        raise InputError(
            f"{Path(folder).absolute() / pattern}: no file fits this pattern; "
            "give another, or the folder of the data with --data.dir"
        )
    return found


def paths(folder: str, files: Files) -> list[Path]:
    """The paths of all files that one or several names or patterns mean, in their order.

    Raises:
        InputError: on a pattern that fits no file.
    """
    patterns = (files,) if isinstance(files, str) else files
    return [Path(folder, name) for pattern in patterns for name in names(folder, pattern)]


@contextlib.contextmanager
def opening(path: Path) -> Iterator[None]:
    """Tells in one line why a file of the data cannot be read, where the code within the context reads it.

    Raises:
        InputError: as said.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path.absolute()}: no such file; give the folder of the data with --data.dir") from None
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{path.absolute()}: {why}; give the folder of the data with --data.dir") from None


def lines(path: Path) -> Iterator[str]:
    """The lines of a file, split at line feeds only: other separators of Unicode belong to the text.

    Raises:
        InputError: on a file that is missing, and on broken compression or UTF-8, by line.
    """
    number, line = 1, list[bytes]()  # parts of the line that the last chunk has begun
    try:
        for chunk in _content(path):
            first, *others = chunk.split(b"\n")
            line.append(first)
            for other in others:
                yield _decoded(b"".join(line), path, number)
                number, line = number + 1, [other]
    except _BrokenError as error:
        raise InputError(f"{path}: broken {error}, in line {number}; fetch or compress it again") from None
    if last := b"".join(line):
        yield _decoded(last, path, number)


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}, byte {error.start + 1}: invalid UTF-8: {error.reason}; save it as UTF-8"
        ) from None


def _content(path: Path) -> Iterator[bytes]:
    packed = _FORMATS.get(path.suffix)
    return _chunks(path) if packed is None else _unpacked(_chunks(path), packed)


def _chunks(path: Path) -> Iterator[bytes]:
    with opening(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _unpacked(chunks: Iterator[bytes], packed: _Format) -> Iterator[bytes]:
    stream = packed.decompressor()
    for chunk in chunks:
        while chunk := chunk.lstrip(b"\0") if stream.eof else chunk:  # with zeros some tools fill up their blocks
            if stream.eof:
                stream = packed.decompressor()
            try:
                yield stream.decompress(chunk)
            except Exception as error:  # each library has errors of its own
                raise _BrokenError(f"{packed.name}: {error}") from None
            chunk = stream.unused_data
    if not stream.eof:
        raise _BrokenError(f"{packed.name}: it ends too early")
