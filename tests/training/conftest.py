"""Runs within the process of the tests, on any number of its devices; their programs are compiled once."""

import functools
import gc

import jax
import pytest
from small_runs import write_words

from transformer_jax.training import loop
from transformer_jax.training.step import Trainer


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trainers():
    """The runs of a module are many, their programs few."""
    return functools.cache(Trainer)


@pytest.fixture
def devices(monkeypatch, trainers):
    """Makes runs see so many devices."""
    everything = jax.devices()
    monkeypatch.setattr(loop, "Trainer", trainers)
    return lambda count: monkeypatch.setattr(jax, "devices", lambda: everything[:count])


@pytest.fixture
def collected():
    """What a test abandons is collected before the next test, where its warning would count."""
    yield
    gc.collect()
