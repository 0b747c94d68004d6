"""Pairs of the test sets that sacrebleu knows: the lines that `sacrebleu -t NAME` scores with."""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock
import sacrebleu

from transformer_jax.config import SacrebleuSet
from transformer_jax.data.sources.reading import lines
from transformer_jax.data.sources.source import Example
from transformer_jax.errors import InputError, first_line


def read_sacrebleu(data: SacrebleuSet, name: str) -> Iterator[Example]:
    """The pairs of a test set, with the first reference where there are several.

    They are fetched into the folder $SACREBLEU, ~/.sacrebleu where it is not set, unless they are there.

    Raises:
        InputError: on a set or a pair of languages that sacrebleu does not know, a set that cannot be fetched, and
            files that are damaged.
    """
    if name not in sacrebleu.DATASETS:
        raise InputError(f"data: sacrebleu has no set {name!r}; `sacrebleu --list` shows those it has")
    known = sacrebleu.get_langpairs_for_testset(name)
    if data.pair not in known:
        raise InputError(f"data.pair={data.pair!r}: the set {name!r} of sacrebleu has {', '.join(sorted(known))}")
    source, target = _fetched(data.pair, name)
    for number, pair in enumerate(itertools.zip_longest(lines(source), lines(target)), start=1):
        if None in pair:
            raise InputError(
                f"{source} and {target.name}: line {number} is in one of them only; remove {source.parent}, and they "
                "are fetched again"
            )
        yield pair


def _fetched(pair: str, name: str) -> tuple[Path, Path]:
    """The files of both sides; processes that share a folder fetch one after the other."""
    folder = Path(sacrebleu.SACREBLEU_DIR).absolute()
    with _complaints() as complaints:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / "transformer_jax.lock"):
                references = sacrebleu.get_reference_files(name, pair)
                return Path(sacrebleu.get_source_file(name, pair)), Path(references[0])
        except SystemExit:  # with which sacrebleu ends the process, having said why
            why = complaints[0]
        except Exception as error:  # network, disk, an archive that is broken: each fails in its own way
            why = first_line(error)
    raise InputError(
        f"data: the set {name!r} of sacrebleu is not in {folder}, and fetching it failed ({why}); where there is a "
        f"network run sacrebleu -t {name} -l {pair} --echo src, and set SACREBLEU to the folder that has it then; "
        f"what is broken in {folder / name} has to be removed first"
    )


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """What sacrebleu logs as errors within the context, in place of lines on standard error."""
    complaints, logger = list[str](), logging.getLogger("sacrebleu")

    def kept(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            complaints.append(record.getMessage())
        return False

    logger.addFilter(kept)
    try:
        yield complaints
    finally:
        logger.removeFilter(kept)
