"""Checkpoints of a few bytes, for the tests of them."""

import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.training.checkpoints import Checkpoints

KEEP = {"newest": 2, "best": 1, "score": lambda measured: -measured["loss"]}


def items_of(step):
    """Two items of several dtypes; special values included."""
    random = np.random.default_rng(step)
    special = [np.nan, -0.0, np.inf, 1e-45]
    return {
        "parameters": {
            "kernel": jnp.asarray(random.normal(size=(7, 11)), jnp.float32).at[0, :4].set(jnp.asarray(special)),
            "half": jnp.asarray(random.normal(size=5), jnp.bfloat16),
        },
        "optimizer": {"count": jnp.int32(step)},
    }


def abstract(items):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), items)


def same_bits(left, right):
    def equal(a, b):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(equal, left, right)
    return True


def save(folder, *steps, metrics=None, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            measured = None if metrics is None else metrics.get(step)
            checkpoints.save(step, items_of(step), {"epoch": step, "name": f"step {step}"}, measured)
        checkpoints.wait()


def new_threads(before):
    """Those that are still there once what Orbax's event loops abandoned is collected."""
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    return set(threading.enumerate()) - before


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def delete(file):
    file.unlink()


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def grow(file):
    file.write_bytes(file.read_bytes() + b"\0")


def flip(file, place=None):
    """One bit, in the middle where no other byte is named."""
    data = bytearray(file.read_bytes())
    place = len(data) // 2 if place is None else place
    data[place] ^= 1 << place % 8
    file.write_bytes(data)
