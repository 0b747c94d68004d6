"""Pairs from files of JSON, one object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer_jax.config import JsonLines
from transformer_jax.config.sources import Files
from transformer_jax.data.sources.reading import lines, paths
from transformer_jax.data.sources.records import texts_of
from transformer_jax.data.sources.source import Example
from transformer_jax.errors import InputError


def read_json_lines(data: JsonLines, files: Files) -> Iterator[Example]:
    """The pairs of files, an object a line, in two of its fields, or the text in one.

    Raises:
        InputError: on a file that is missing, broken compression or UTF-8, and a line that is no JSON object, lacks a
            field, or has neither text nor a number in it.
    """
    for path in paths(data.dir, files):
        yield from texts_of(_records(path), data.source, data.target, {}, f"{path}, line")


def _records(path: Path) -> Iterator[Any]:
    for number, line in enumerate(lines(path), start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if not line.strip():
                raise InputError(f"{path}, line {number}: empty, and it must be a JSON object") from None
            raise InputError(f"{path}, line {number}, character {error.colno}: broken JSON: {error.msg}") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
            raise InputError(f"{path}, line {number}: JSON that cannot be read: {error}") from None
