"""Where a verb reads lines from, and where it writes."""

import contextlib
import io
import sys
from pathlib import Path
from typing import cast

from transformer_jax.errors import InputError


def check_output() -> None:
    """Checks that there is a standard output.

    Raises:
        InputError: where it is closed.
    """
    if sys.stdout is None:
        raise InputError("standard output is closed: what would be printed there is lost")


def check_input(path: Path | None) -> None:
    """Checks that there is a file or a standard input.

    Raises:
        InputError: where it is closed.
    """
    if path is None and sys.stdin is None:
        raise InputError("standard input is closed: --input FILE says what to read")


def opened(path: Path | None, stack: contextlib.ExitStack) -> tuple[io.BufferedIOBase, str]:
    """A file of lines, plain or .gz, or standard input, with its name.

    Raises:
        InputError: when it cannot be opened.
    """
    from transformer_jax.translation.lines import open_lines

    if path is None:
        return cast(io.BufferedIOBase, sys.stdin.buffer), "standard input"
    return stack.enter_context(open_lines(path)), str(path)
