"""Which tensors of a checkpoint are which of our parameters, said once and used both ways."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from transformer_jax.errors import InputError

Read: TypeAlias = Callable[[str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Name:
    """One of our parameters and the tensor of a checkpoint, or one a layer, that holds it."""

    theirs: str  # with "{layer}" where there is one a layer
    ours: str  # the path of the leaf, its keys joined by "/"
    depth: int | None = None  # layers, which we stack on a leading axis
    transposed: bool = False  # a matrix that lies [out, in] there
    part: tuple[int, int] = (0, 1)  # which of how many equal parts of their last axis
    row: bool = False  # a vector that is [1, V] there
    padded: int = 0  # rows of zeros that we have behind theirs
    optional: bool = False  # zeros where it is missing

    def tensors(self) -> list[str]:
        """The names of the tensors, in the order of layers."""
        if self.depth is None:
            return [self.theirs]
        return [self.theirs.format(layer=layer) for layer in range(self.depth)]

    def leaf(self, read: Read) -> np.ndarray:
        """Our parameter, made of theirs."""
        if self.depth is None:
            return self._ours(read(self.theirs))
        first = self._ours(read(self.tensors()[0]))
        leaf = np.empty((self.depth, *first.shape), first.dtype)
        leaf[0] = first
        for layer, name in enumerate(self.tensors()[1:], start=1):
            leaf[layer] = self._ours(read(name))
        return leaf

    def _ours(self, tensor: np.ndarray) -> np.ndarray:
        index, count = self.part
        tensor = np.split(tensor, count, axis=-1)[index] if count > 1 else tensor
        tensor = tensor[0] if self.row else tensor
        tensor = tensor.T if self.transposed else tensor
        return np.pad(tensor, [(0, self.padded), *[(0, 0)] * (tensor.ndim - 1)]) if self.padded else tensor

    def _theirs(self, leaf: np.ndarray) -> np.ndarray:
        leaf = leaf[: len(leaf) - self.padded]
        leaf = leaf.T if self.transposed else leaf
        return leaf[None] if self.row else leaf

    def part_of(self, leaf: np.ndarray, layer: int) -> np.ndarray:
        """What a tensor holds of our parameter; the layer counts where there is one tensor a layer."""
        return self._theirs(leaf if self.depth is None else leaf[layer])

    def shape(self, ours: Sequence[int]) -> tuple[int, ...]:
        """The shape of each tensor, of that of our parameter."""
        own = list(ours if self.depth is None else ours[1:])
        own[0] -= self.padded
        own = own[::-1] if self.transposed else own
        own[-1] *= self.part[1]
        return (1, *own) if self.row else tuple(own)


def projection(theirs: str, ours: str, depth: int | None, *, bias: bool = True) -> list[Name]:
    """The names of a linear projection, as torch keeps one."""
    names = [Name(f"{theirs}.weight", f"{ours}/kernel", depth, transposed=True)]
    return [*names, Name(f"{theirs}.bias", f"{ours}/bias", depth)] if bias else names


def norm(theirs: str, ours: str, depth: int | None = None, *, bias: bool = True) -> list[Name]:
    """The names of a normalisation."""
    names = [Name(f"{theirs}.weight", f"{ours}/scale", depth)]
    return [*names, Name(f"{theirs}.bias", f"{ours}/bias", depth)] if bias else names


def flat(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of dictionaries, by their paths."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of dictionaries whose leaves have these paths."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = leaf
    return tree


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint, to be made of parts of our parameters."""

    parts: tuple[tuple[Name, int], ...]  # in order along the last axis: of which name, and of which layer

    def of(self, leaves: Mapping[str, Any]) -> np.ndarray:
        """The tensor."""
        parts = [name.part_of(np.asarray(leaves[name.ours]), layer) for name, layer in self.parts]
        return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1))

    def size(self, leaves: Mapping[str, Any]) -> int:
        """Its bytes."""
        name, _ = self.parts[0]
        leaf = leaves[name.ours]
        return math.prod(name.shape(leaf.shape)) * leaf.dtype.itemsize


def tensors_of(names: Iterable[Name]) -> dict[str, Tensor]:
    """All tensors of a checkpoint by their names."""
    parts: dict[str, dict[int, tuple[Name, int]]] = {}
    for name in names:
        for layer, tensor in enumerate(name.tensors()):
            parts.setdefault(tensor, {})[name.part[0]] = (name, layer)
    return {tensor: Tensor(tuple(own[index] for index in sorted(own))) for tensor, own in parts.items()}


def check(names: Iterable[Name], shapes: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> set[str]:
    """Checks the shapes of all tensors there must be; returns their names.

    Args:
        names: of the family.
        shapes: of our parameters, by path.
        found: shapes of the tensors of the checkpoint, by name.

    Raises:
        InputError: naming a tensor that is missing, or has another shape.
    """
    known = set[str]()
    for name in names:
        wanted = name.shape(shapes[name.ours])
        for tensor in name.tensors():
            known.add(tensor)
            if tensor not in found and name.optional:
                continue
            if tensor not in found:
                raise InputError(f"{tensor}: no such tensor; config.json asks for one of {list(wanted)}")
            if tuple(found[tensor]) != wanted:
                raise InputError(f"{tensor}: a tensor of {list(found[tensor])}; config.json asks for {list(wanted)}")
    return known
