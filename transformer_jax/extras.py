"""Libraries that only some uses need: the optional dependencies of the package."""

import importlib
from typing import Any

from transformer_jax.errors import InputError


def load_extra(module: str, extra: str, purpose: str) -> Any:
    """A module of an optional dependency.

    Raises:
        InputError: where it is missing; it names the extra that has it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        if error.name != library:
            raise
        raise InputError(
            f"{purpose}: needs the library {library}, which is missing: pip install 'transformer-jax[{extra}]'"
        ) from None
