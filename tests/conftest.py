"""Eight simulated CPU devices, set before any backend starts; quick compilation; no silent rank promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # a GPU beside these tests stays idle
# These tests compile much and compute little. Without most optimizations XLA takes half the time; its older way to
# generate fused loops takes half of that (with optimizations it is the slower one), and one LLVM module instead of many
# saves another sixth. The processes that tests start inherit all three.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)

import gc

import jax

gc.set_threshold(50_000, 20, 20)  # a tenth of the time goes there otherwise
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


LONGEST = {"test_loop.py", "test_processes.py", "test_families.py"}


def pytest_collection_modifyitems(items):
    """The longest files first: by files, two workers share the tests, and none should end with them."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
