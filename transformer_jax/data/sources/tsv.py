"""Pairs from tab-separated files."""

from collections.abc import Iterator

from transformer_jax.config import TsvFiles
from transformer_jax.config.sources import Files
from transformer_jax.data.sources.reading import lines, paths
from transformer_jax.data.sources.source import Example
from transformer_jax.errors import InputError


def read_tsv(data: TsvFiles, files: Files) -> Iterator[Example]:
    """The pairs of files, a line each, in two of its tab-separated columns, or the text in one.

    Raises:
        InputError: on a file that is missing, broken compression or UTF-8, and a line with too few columns.
    """
    source, target = data.columns
    last = max(source or 0, target)
    if min(source or 0, target) < 0:
        raise InputError(f"data.columns={data.columns}: columns are counted from 0")
    for path in paths(data.dir, files):
        for number, line in enumerate(lines(path), start=1):
            columns = line.split("\t")
            if len(columns) <= last:
                raise InputError(
                    f"{path}, line {number}: {len(columns)} tab-separated columns, "
                    f"but data.columns={data.columns} needs {last + 1}"
                )
            yield None if source is None else columns[source], columns[target]
