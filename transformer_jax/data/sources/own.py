"""Examples of a class of the user's own."""

import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from transformer_jax.config import OwnData
from transformer_jax.data.sources.source import Example, Grouped, Source, Split
from transformer_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class OwnSource:
    """The source that an import path names, made, with what it gives checked."""

    data: OwnData

    def pairs(self, split: Split) -> Iterator[Example] | None:
        """The examples of a split.

        Raises:
            InputError: on an import path without such a class, on arguments that it does not take, and on an example
                that is no pair.
        """
        found = self._made().pairs(split)
        return None if found is None else self._checked(found, split)

    def groups(self, split: Split) -> Sequence[str] | None:
        """The labels of its examples, where the class has some."""
        made = self._made()
        return made.groups(split) if isinstance(made, Grouped) else None

    def _made(self) -> Source:
        name, arguments = self.data.source, dict(self.data.arguments)
        if self.data.dir is not None:
            arguments["dir"] = self.data.dir
        found = _imported(name)
        try:
            inspect.signature(found).bind(**arguments)
        except TypeError as error:
            raise InputError(f"data.arguments={arguments}: not what {name} takes: {error}") from None
        made = found(**arguments)
        if not isinstance(made, Source):
            raise InputError(f"data.source={name!r}: has no method pairs(split)")
        return made

    def _checked(self, examples: Iterable[Any], split: Split) -> Iterator[Example]:
        first: bool | None = None  # whether the first example is plain text
        for number, example in enumerate(examples, start=1):
            place = f"data.source={self.data.source!r}: split {split!r}, example {number}"
            match example:
                case (str() | None as source, str(target)):
                    plain = source is None
                case _:
                    raise InputError(f"{place}: {example!r} must be a pair of texts, or of None and a text")
            first = plain if first is None else first
            if plain != first:
                raise InputError(f"{place}: some sources are None, others are not; plain text has none at all")
            yield source, target


def _imported(name: str) -> Any:
    """What an import path means; modules are found in the working directory too, where a script would not look."""
    path, _, attribute = name.partition(":")
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"data.source={name!r}: there is no module {error.name!r}, neither installed nor in {folder}"
        ) from None
    finally:
        sys.path.remove(folder)
    if not callable(found := getattr(module, attribute, None)):
        raise InputError(f"data.source={name!r}: {path} has no class {attribute!r}")
    return found
