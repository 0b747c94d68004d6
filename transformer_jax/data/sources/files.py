"""Pairs from files: aligned text files and tab-separated files, plain or .gz, fetched where the experiment says so."""

import gzip
import hashlib
import http.client
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from transformer_jax.config import TextFiles, TsvFiles
from transformer_jax.data.sources.pairs import Pairs
from transformer_jax.errors import InputError
from transformer_jax.files import written_whole

_TIMEOUT = 60  # seconds without an answer
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def load_text(data: TextFiles, files: tuple[str, str]) -> Pairs:
    """The pairs of two aligned files: line i of the one translates line i of the other.

    Raises:
        InputError: on a file that is missing and cannot be fetched, another digest than the experiment lists, broken
            gzip or UTF-8, and unequal line counts.
    """
    sides = []
    for name in files:
        path = Path(data.dir) / name
        content = _read(path) if path.exists() or data.url is None else _fetch(data.url, name, path, data)
        _check_digest(content, name, str(path), data)
        sides.append(_lines(content, path))
    sources, targets = sides
    if len(sources) != len(targets):
        first, second = (Path(data.dir) / name for name in files)
        raise InputError(
            f"{first} has {len(sources)} lines, {second} has {len(targets)}: aligned files have as many as each other"
        )
    return Pairs(sources, targets)


def load_tsv(data: TsvFiles, file: str) -> Pairs:
    """The pairs of one file, a line each, in two of its tab-separated columns.

    Raises:
        InputError: on a file that is missing, broken gzip or UTF-8, and a line with too few columns.
    """
    if min(data.columns) < 0:
        raise InputError(f"data.columns={data.columns}: columns are counted from 0")
    path = Path(data.dir) / file
    source, target = data.columns
    sources, targets = [], []
    for number, line in enumerate(_lines(_read(path), path), start=1):
        columns = line.split("\t")
        if len(columns) <= max(data.columns):
            raise InputError(
                f"{path}, line {number}: {len(columns)} tab-separated columns, "
                f"but data.columns={data.columns} needs {max(data.columns) + 1}"
            )
        sources.append(columns[source])
        targets.append(columns[target])
    return Pairs(sources, targets)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path.absolute()}: no such file; give the folder of the data with --data.dir") from None
    except OSError as error:
        raise InputError(f"{path.absolute()}: {error.strerror}; give the folder of the data with --data.dir") from None


def _lines(content: bytes, path: Path) -> list[str]:
    """The lines of a file, split at line feeds only: other separators of Unicode belong to the text."""
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: broken gzip: {error}; fetch or compress it again") from None
    content = content.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        place = error.start - content.rfind(b"\n", 0, error.start)
        raise InputError(
            f"{path}, line {line}, byte {place}: invalid UTF-8: {error.reason}; save it as UTF-8"
        ) from None
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()  # the file ends with a line feed, or is empty
    return [line.removesuffix("\r") for line in lines]


def _check_digest(content: bytes, name: str, place: str, data: TextFiles) -> None:
    expected = dict(data.sha256).get(name)
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected.lower():
        raise InputError(
            f"{place}: sha256 {found}, but data.sha256 expects {expected}; give the file the experiment means"
        )


def _fetch(url: str, name: str, path: Path, data: TextFiles) -> bytes:
    """The bytes of url/name, kept at `path` once they are whole and right."""
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
    _check_digest(content, name, address, data)
    with written_whole(path, "give another folder with --data.dir") as temporary:
        temporary.write_bytes(content)
    return content
