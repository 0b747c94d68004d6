"""Fingerprints of trees of arrays: the same on any mesh, other for any other bit."""

import functools
import re
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped, UInt32

from transformer_jax.hashing import scramble

Items: TypeAlias = dict[str, Any]  # name of an item -> tree of arrays
Leaves: TypeAlias = dict[str, dict[str, list[Any]]]  # item -> path of a leaf -> [dtype, shape, fingerprint]

_KEY = re.compile(r"\['(.*?)'\]|\[(\d+)\]|\.(\w+)")  # of a path as jax.tree_util.keystr writes it


class Fingerprints:
    """Dtype, shape and fingerprint of every leaf of every item, computed behind what the devices have to do already."""

    def __init__(self, items: Items) -> None:
        """Starts; the arrays may change as soon as this returns."""
        self._shapes = {name: _shapes(tree) for name, tree in items.items()}
        leaves = [leaf for tree in items.values() for leaf in jax.tree.leaves(tree)]
        self._prints = _program(_whole_on_the_mesh_of(leaves))(leaves) if leaves else ()

    def result(self) -> Leaves:
        """Waits for the devices."""
        prints = iter(jax.device_get(self._prints))
        return {
            name: {path: [*shape, "{:08x}{:08x}".format(*map(int, next(prints)))] for path, shape in leaves.items()}
            for name, leaves in self._shapes.items()
        }


def describe(items: Items) -> Leaves:
    """Dtype, shape and fingerprint of every leaf of every item."""
    return Fingerprints(items).result()


def difference(expected: Leaves, found: Leaves) -> str | None:
    """The first leaf of `found` that is not as expected, `None` where all are.

    Paths are compared by their keys alone: what is read without its classes has [0]['count'] for [0].count.
    """
    for name, leaves in found.items():
        by_keys = {_keys(path): leaf for path, leaf in expected[name].items()}
        for path, leaf in leaves.items():
            if by_keys.get(_keys(path)) != leaf:
                return f"{name}{path}"
    return None


def mismatch(abstract: Items, leaves: Leaves) -> str | None:
    """The first leaf of which dtype or shape are not those of an abstract tree, told in words; None where all are."""
    for name, tree in abstract.items():
        if name not in leaves:
            return f"holds no {name}, only {', '.join(leaves)}"
        expected = _shapes(tree)
        found = {path: saved[:2] for path, saved in leaves[name].items()}
        for path in [*expected, *found]:
            if expected.get(path) != found.get(path):
                return f"{name}{path} is {found.get(path)}, but the experiment has {expected.get(path)}"
    return None


def fingerprint(x: Shaped[Array, "*shape"]) -> UInt32[Array, "2"]:
    """64 bits of an array that change with any of its bits and with any exchange of elements.

    A sum over elements of a hash of value and place: the same however the array is sharded, since integer sums do not
    depend on their order, and computed where the shards lie, since no axis is merged with another.
    """
    width = x.dtype.itemsize
    bits = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16}.get(width, jnp.uint32))
    words = bits.astype(jnp.uint32)
    place, stride = jnp.full(words.shape, 0x9E3779B9, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    place = scramble(place)
    low = scramble(words ^ place)
    return jnp.stack([scramble(low + place).sum(dtype=jnp.uint32), low.sum(dtype=jnp.uint32)])


def _shapes(tree: Any) -> dict[str, list[Any]]:
    """Path of a leaf -> [dtype, shape]."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): [str(leaf.dtype), list(leaf.shape)] for path, leaf in leaves}


@functools.cache
def _program(placed: NamedSharding | None) -> Any:
    return jax.jit(lambda leaves: jnp.stack([fingerprint(leaf) for leaf in leaves]), out_shardings=placed)


def _whole_on_the_mesh_of(leaves: list[Any]) -> NamedSharding | None:
    """So that every process can read the result; None where no leaf lies on a mesh."""
    for leaf in leaves:
        if isinstance(sharding := getattr(leaf, "sharding", None), NamedSharding):
            return NamedSharding(sharding.mesh, PartitionSpec())
    return None


def _keys(path: str) -> tuple[str, ...]:
    return tuple("".join(key) for key in _KEY.findall(path))
