"""The plainest experiment, and what a mistake has to say."""

import contextlib

import pytest

from transformer_jax.config import Experiment, Numerals, TrainingConfig
from transformer_jax.errors import InputError


def experiment(**fields):
    return Experiment(**{"data": Numerals(), "training": TrainingConfig(steps=7)} | fields)


@contextlib.contextmanager
def one_line(*parts):
    """The block raises an InputError of one line that holds all of the parts."""
    with pytest.raises(InputError) as caught:
        yield caught
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


def mistake(make, *arguments, **fields):
    """The message of the InputError that is raised."""
    with one_line() as caught:
        make(*arguments, **fields)
    return str(caught.value)
