"""Whose data a message is about."""

import contextlib
import re
from collections.abc import Iterator

from transformer_jax.errors import InputError

# A field of `data`, but no file of such a name in a path.
_FIELD = re.compile(r"(?<![\w/.])data\.(?=(?:dir|name|train|validation|test|url|source|target|columns|unit)\b)")


@contextlib.contextmanager
def naming(owner: str) -> Iterator[None]:
    """Sources call their fields data.dir and so on; within, errors call them fields of what the data belongs to.

    Args:
        owner: the dotted name of the data, such as held_out, or mixture.tasks.0.data.

    Raises:
        InputError: the one that was raised, of those fields.
    """
    try:
        yield
    except InputError as error:
        raise InputError(_FIELD.sub(lambda found: f"{owner}.", str(error))) from None
