"""The processes of a run, of which one coordinates: here there is only one."""

from typing import TypeVar

_Value = TypeVar("_Value")


def is_coordinator() -> bool:
    """Whether this process decides and writes for all."""
    return True


def agree(value: _Value) -> _Value:
    """The coordinator's value, which JSON can hold, on every process; all of them call it, in the same order."""
    return value
