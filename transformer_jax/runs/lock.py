"""One process at a time in a folder."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically

_HOLDER = ".lock.holder"  # beside .lock, which may be truncated by who asks for it


class InUseError(InputError):
    """Another process holds a run folder."""


@contextlib.contextmanager
def lock(workdir: str | Path, flag: str = "--workdir") -> Iterator[None]:
    """Keeps other processes from this folder; the operating system lets go when the process dies.

    Args:
        workdir: the folder, made if need be.
        flag: what chooses another one, for messages.

    Raises:
        InUseError: when another process holds it; it names the folder and that process.
        InputError: when it cannot be made.
    """
    path = Path(workdir)
    make_folder(path, flag)
    holder = path / _HOLDER
    guard = filelock.FileLock(path / ".lock")
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise InUseError(f"{path}: in use by {who}; wait for it or choose another {flag}") from None
    try:
        write_atomically(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        guard.release()


def is_in_use(workdir: str | Path) -> bool:
    """Whether a process holds this run folder: one of another machine, as far as its record tells."""
    try:
        _, number, _, host = (Path(workdir) / _HOLDER).read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # nobody's, or being written
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(number), 0)  # a signal that does nothing
    except ProcessLookupError:  # killed before it could take its record away
        return False
    except PermissionError:  # another user's
        return True
    return True


def make_folder(path: Path, flag: str = "--workdir") -> None:
    """Makes a folder, and those above it.

    Raises:
        InputError: when it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make the folder: {error.strerror}; choose another {flag}") from None
