"""The verb translate."""

import codecs
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from transformer_jax.cli.arguments import DecodingFlags, Run, call
from transformer_jax.errors import InputError
from transformer_jax.runs import open_run


def main(arguments: Sequence[str]) -> int:
    """Translates; returns the exit code."""
    return call("translate", translate, arguments)


def translate(
    run: Run,
    decoding: Annotated[DecodingFlags, tyro.conf.arg(name="")],
    step: int | None = None,
) -> int:
    """Translates standard input to standard output: one line in, one line out, blank for blank, in order.

    Args:
        run: the run folder.
        decoding: how to translate.
        step: the checkpoint to translate with; None is the best, or the newest where none was measured.
    """
    config = decoding.applied_to(open_run(run))
    lines = read_lines(sys.stdin.buffer.read())
    from transformer_jax.translation import Translator

    translator = Translator.from_run(run, step=step, decoding=config)
    sys.stdout.buffer.write("".join(f"{line}\n" for line in translator.translate(lines)).encode())
    return 0


def read_lines(content: bytes) -> list[str]:
    """The lines of standard input, in UTF-8; only line feeds end one, other separators of Unicode belong to the text.

    Raises:
        InputError: on bytes that are no UTF-8, by line and byte, both counted from 1.
    """
    *lines, last = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if last:
        lines.append(last)
    return [_decode(line.removesuffix(b"\r"), number) for number, line in enumerate(lines, start=1)]


def _decode(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input, line {number}, byte {error.start + 1}: invalid UTF-8: {error.reason}"
        ) from None
