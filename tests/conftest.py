"""Eight simulated CPU devices, set before any backend starts; no silent rank promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # a GPU beside these tests stays idle

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests that compile much and compute little: without most optimizations XLA takes half the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def pytest_collection_modifyitems(items):
    """The longest file first: by files, two workers share the tests, and none should end with it."""
    items.sort(key=lambda item: item.path.name != "test_loop.py")
