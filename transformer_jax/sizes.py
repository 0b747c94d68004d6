"""Sizes of arrays."""

from typing import Any, TypeAlias

Size: TypeAlias = Any  # an int; in a program for any number of sentences, a symbol of jax.export
