"""Eight simulated CPU devices, set before any backend starts; quick compilation; no silent rank promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # a GPU beside these tests stays idle

import jax

jax.config.update("jax_num_cpu_devices", 8)
# These tests compile much and compute little: without most optimizations XLA takes half the time. The processes that
# they start compile as users do.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """The longest files first: by files, two workers share the tests, and none should end with them."""
    items.sort(key=lambda item: item.path.name not in {"test_loop.py", "test_processes.py"})
