"""Files that are there whole or not at all."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from transformer_jax.errors import InputError


@contextlib.contextmanager
def written_whole(path: Path, advice: str = "make room or mend the folder") -> Iterator[Path]:
    """A place to write a file or a folder to, which is moved to `path` when the context ends well.

    Whenever the process or the machine dies, `path` holds the old content or the new, whole; processes that write the
    same file at the same time do not mix. Its folder is made if need be.

    Args:
        path: the file; of a folder there is none yet, or an empty one.
        advice: what to do when it cannot be written, for the message.

    Raises:
        InputError: when it cannot be written, to a full disk say; what was there is still there.
    """
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            yield temporary
            to_disk(temporary)
            temporary.replace(path)
        to_disk(path.parent)  # the new name is on disk only when its folder is
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}; {advice}") from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file, whole or not at all; see `written_whole`.

    Raises:
        InputError: when it cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def require_new(path: Path, flag: str) -> None:
    """Requires a place for a folder: nothing is there yet, or an empty folder.

    Raises:
        InputError: when something is; it names the flag that chooses another place.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: exists and is not empty; choose another {flag}")


def to_disk(path: Path) -> None:
    """Returns when a file, or the list of names that is a folder, outlives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
