"""The tensors of a folder, in one safetensors file or several, read one at a time."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors

from transformer_jax.errors import InputError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "flax_model.msgpack", "tf_model.h5")


class Tensors:
    """The tensors of a folder, by name. A context manager, which holds open the files that were read.

    Args:
        folder: with model.safetensors, or the several files that model.safetensors.index.json lists.
        canonical: the name of a tensor, of that in the file.
        aliases: names of which one may be there instead of another: of which.

    Attributes:
        shapes: the shape of every tensor.

    Raises:
        InputError: on a folder without safetensors, and on files that are missing or damaged.
    """

    def __init__(self, folder: Path, canonical: Callable[[str], str], aliases: Mapping[str, str]) -> None:
        self._homes: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[Path, Any] = {}
        self._opened = contextlib.ExitStack()
        for path in _paths(folder):
            with _open(path) as file:
                for name in list(file.keys()):
                    self._homes[canonical(name)] = path, name
                    self.shapes[canonical(name)] = tuple(file.get_slice(name).get_shape())
        for alias, name in aliases.items():
            if alias in self._homes and name not in self._homes:
                self._homes[name], self.shapes[name] = self._homes.pop(alias), self.shapes.pop(alias)

    def __enter__(self) -> "Tensors":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Closes the files: what was read of them, and is mapped, counts as memory until then."""
        self._files.clear()
        self._opened.close()

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        path, own = self._homes[name]
        if path not in self._files:
            self._files[path] = self._opened.enter_context(_open(path))
        tensor: np.ndarray = self._files[path].get_tensor(own)
        return tensor

    def same(self, name: str, other: str) -> bool:
        """Whether two tensors hold the same."""
        return self.shapes[name] == self.shapes[other] and np.array_equal(self.read(name), self.read(other))


def _paths(folder: Path) -> list[Path]:
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    if (folder / INDEX).exists():
        return [folder / name for name in sorted(set(_index(folder / INDEX).values()))]
    for name in _PICKLED:
        if (folder / name).exists():
            raise InputError(
                f"{folder / name}: not opened: no safetensors, and reading a pickle can run code; where you trust it, "
                "open it by AutoModel.from_pretrained of transformers, whose save_pretrained writes safetensors"
            )
    raise InputError(f"{folder}: no checkpoint here: neither {WHOLE} nor {INDEX}")


def _index(path: Path) -> Mapping[str, str]:
    try:
        homes = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: no list of tensors; download it again") from None
    if not isinstance(homes, dict) or not all(isinstance(name, str) and "/" not in name for name in homes.values()):
        raise InputError(f"{path}: no list of tensors; download it again")
    return homes


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise InputError(f"{path}: missing, though {INDEX} lists it; download it") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: a damaged file; download it again ({error})") from None
    with file:
        yield file
