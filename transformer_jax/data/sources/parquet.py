"""Pairs from Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer_jax.config import Parquet
from transformer_jax.config.sources import Files
from transformer_jax.data.sources.reading import opening, paths
from transformer_jax.data.sources.records import check_fields, outermost, texts_of
from transformer_jax.data.sources.source import Example
from transformer_jax.errors import InputError
from transformer_jax.extras import load_extra

_ROWS = 10_000  # held at once


def read_parquet(data: Parquet, files: Files) -> Iterator[Example]:
    """The pairs of files, a row each, in two of their columns, or the text in one.

    Raises:
        InputError: on a file that is missing or broken, a column that is not there, and a row that has neither text nor
            a number in it.
    """
    for path in paths(data.dir, files):
        yield from texts_of(_records(data, path), data.source, data.target, {}, f"{path}, row")


def _records(data: Parquet, path: Path) -> Iterator[dict[str, Any]]:
    arrow, parquet = (load_extra(name, "parquet", str(path)) for name in ("pyarrow", "pyarrow.parquet"))
    try:
        with opening(path), path.open("rb") as file:
            table = parquet.ParquetFile(file)
            known = table.schema_arrow.names
            check_fields(data.source, data.target, known, str(path))
            for batch in table.iter_batches(_ROWS, columns=sorted(outermost((data.source, data.target), known))):
                yield from batch.to_pylist()
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: broken Parquet: {' '.join(str(error).split())}; fetch it again") from None
