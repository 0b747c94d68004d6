"""Eight simulated CPU devices, set before any backend starts; no silent rank promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # a GPU beside these tests stays idle

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
