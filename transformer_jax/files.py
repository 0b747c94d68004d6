"""Files that are there whole or not at all."""

import os
from pathlib import Path

from transformer_jax.errors import InputError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that, whenever the process or the machine dies, the old or the new content is there whole.

    Raises:
        InputError: when it cannot be written, a full disk say; what was there is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the new name is on disk only when its folder is
        finally:
            os.close(descriptor)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}; make room or mend the folder") from None
