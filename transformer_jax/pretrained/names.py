"""Which tensors of a checkpoint are which of our parameters, said once and used both ways."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
        parts = [self._ours(read(name)) for name in self.tensors()]
        return parts[0] if self.depth is None else np.stack(parts)

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

    def parts(self, leaf: np.ndarray) -> Iterator[tuple[str, int, np.ndarray]]:
        """The name of each tensor, which part of it this is, and the part."""
        leaves = [leaf] if self.depth is None else list(leaf)
        for name, own in zip(self.tensors(), leaves, strict=True):
            yield name, self.part[0], self._theirs(own)

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


def tensors_of(names: Iterable[Name], leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint, made of our parameters by their paths."""
    parts: dict[str, dict[int, np.ndarray]] = {}
    for name in names:
        for tensor, index, part in name.parts(leaves[name.ours]):
            parts.setdefault(tensor, {})[index] = part
    return {
        tensor: np.ascontiguousarray(np.concatenate([own[index] for index in sorted(own)], axis=-1))
        for tensor, own in parts.items()
    }


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
