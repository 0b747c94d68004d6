"""Fingerprints change with every bit and every exchange, and with nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from transformer_jax.config import MeshConfig
from transformer_jax.sharding import make_mesh
from transformer_jax.training.fingerprints import describe, difference, fingerprint


def test_every_bit_counts():
    x = np.random.default_rng(0).normal(size=3).astype(np.float32)
    prints = {bytes(np.asarray(fingerprint(jnp.asarray(x))))}
    for bit in range(96):
        flipped = x.copy()
        flipped.view(np.uint32)[bit // 32] ^= np.uint32(1 << bit % 32)
        prints.add(bytes(np.asarray(fingerprint(jnp.asarray(flipped)))))
    assert len(prints) == 97


def test_every_exchange_counts():
    x = jnp.arange(7.0)
    prints = {bytes(np.asarray(fingerprint(x)))}
    exchanged = [x.at[i].set(x[j]).at[j].set(x[i]) for i in range(7) for j in range(i)]
    prints |= {bytes(np.asarray(fingerprint(y))) for y in exchanged}
    assert len(prints) == 22


@pytest.mark.parametrize("dtype", ["bfloat16", "int32", "uint8", "float32"])
def test_of_every_dtype(dtype):
    x = jnp.arange(5).astype(dtype)
    assert (fingerprint(x) != fingerprint(x.at[3].set(7))).any()


def test_the_place_of_an_element_is_its_place_in_memory():
    """So that format 1, which merged all axes, has the same fingerprints."""
    x = jax.random.normal(jax.random.key(0), (3, 5, 7))
    assert (fingerprint(x) == fingerprint(x.reshape(-1))).all()


@pytest.fixture(scope="module")
def split():
    """An array on eight devices, along both axes."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    x = jax.random.normal(jax.random.key(0), (8, 6))
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "tensor")))


def test_it_does_not_depend_on_the_mesh(split):
    assert not split.is_fully_replicated
    assert describe({"a": {"x": jnp.asarray(np.asarray(split))}}) == describe({"a": {"x": split}})


def test_only_the_sums_are_exchanged_between_devices(split):
    compiled = jax.jit(fingerprint).lower(split).compile().as_text()
    assert "all-reduce" in compiled
    assert "all-gather" not in compiled


def test_a_difference_is_named_whatever_the_classes_of_its_path():
    saved = {"a": {"[0].count": ["int32", [], "1"], "[1]['kernel']": ["float32", [3], "2"]}}
    read = {"a": {"[0]['count']": ["int32", [], "1"], "['1']['kernel']": ["float32", [3], "2"]}}
    assert difference(saved, read) is None
    read["a"]["['1']['kernel']"][2] = "3"
    assert difference(saved, read) == "a['1']['kernel']"


def test_nothing_is_described_by_nothing():
    assert describe({"a": {}}) == {"a": {}}
