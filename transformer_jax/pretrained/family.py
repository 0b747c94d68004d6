"""What there is to know of a family of checkpoints."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from transformer_jax.config import ModelConfig
from transformer_jax.pretrained.names import Name
from transformer_jax.pretrained.settings import Settings
from transformer_jax.pretrained.words import Frames, Table, same_table


@dataclasses.dataclass(frozen=True)
class Family:
    """A model type of config.json, in our terms.

    Attributes:
        architecture: the class that transformers opens it with.
        config: our config, of what config.json says and whether the output has a matrix of its own.
        settings: the fields of config.json, of our config.
        names: of all tensors, in the order of our parameters or any other.
        aliases: tensors that may be there again, or instead of another one: of which. The embeddings come first.
        ignored: patterns of tensors that are computed, or belong to parts that are not used.
        prefix: of all tensors but the `unprefixed`, which some checkpoints leave out.
        unprefixed: beginnings of the names of tensors that have no prefix.
        constants: parameters of ours that no checkpoint holds.
        table: the pieces of a SentencePiece model by their ids.
        frames: the special tokens of both sides, and what stands around every sentence.
    """

    architecture: str
    config: Callable[[Settings, bool], ModelConfig]
    settings: Callable[[ModelConfig], dict[str, Any]]
    names: Callable[[ModelConfig], list[Name]]
    frames: Frames
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    prefix: str = ""
    unprefixed: tuple[str, ...] = ()
    constants: Callable[[ModelConfig], dict[str, np.ndarray]] = lambda config: {}
    table: Table = same_table

    def canonical(self, name: str) -> str:
        """The name of a tensor, without the habits of earlier times."""
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(f"LayerNorm{old}"):
                name = name.removesuffix(old) + new
        return name if name.startswith((self.prefix, *self.unprefixed)) else self.prefix + name
