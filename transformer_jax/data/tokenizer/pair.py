"""The tokenizers of both sides."""

import dataclasses
import functools
import hashlib
from pathlib import Path

from transformer_jax.data.tokenizer import public
from transformer_jax.data.tokenizer.base import Tokenizer
from transformer_jax.data.tokenizer.public import Public
from transformer_jax.data.tokenizer.sentence_piece import SentencePiece
from transformer_jax.errors import InputError

_JOINT, _SOURCE, _TARGET = "joint.model", "source.model", "target.model"


@dataclasses.dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of both sides: one and the same object where they do not differ."""

    source: Tokenizer
    target: Tokenizer
    public: Public | None = None  # of a public checkpoint; None of those trained here

    @staticmethod
    def of(public: Public, folder: str = "the checkpoint") -> "Tokenizers":
        """Those of a public checkpoint.

        Raises:
            InputError: on a file that is damaged, by its path in the folder.
        """
        source = public.tokenizer(public.source, folder)
        target = source if public.target == public.source else public.tokenizer(public.target, folder)
        return Tokenizers(source, target, public)

    @property
    def joint(self) -> bool:
        """Whether both sides are one."""
        return self.source is self.target

    @functools.cached_property
    def digest(self) -> str:
        """The identity of both, in hex."""
        return hashlib.sha256(f"{self.source.digest} {self.target.digest}".encode()).hexdigest()

    def save(self, folder: Path, *, apart: bool = False) -> None:
        """Writes joint.model, or source.model and target.model, into `folder`, which is made if need be.

        Those of a public checkpoint go there by the names of their files.

        Args:
            folder: the folder.
            apart: whether both sides have a file of their own, also where they do not differ.

        Raises:
            InputError: when they cannot be written.
        """
        if self.public is not None:
            self.public.save(folder)
            return
        sides = {_JOINT: self.source} if self.joint and not apart else {_SOURCE: self.source, _TARGET: self.target}
        for name, side in sides.items():
            assert isinstance(side, SentencePiece)  # as those that are trained here
            side.save(folder / name)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizers":
        """The tokenizers that `save` wrote.

        Raises:
            InputError: on a file that is missing or foreign, by its path.
        """
        if (folder / public.NAME).exists():
            return cls.of(Public.load(folder), str(folder))
        if (folder / _JOINT).exists():
            joint = SentencePiece.load(folder / _JOINT)
            return cls(joint, joint)
        if not (folder / _SOURCE).exists() and not (folder / _TARGET).exists():
            raise InputError(f"{folder}: no tokenizer here: neither {_JOINT} nor {_SOURCE} and {_TARGET}")
        return cls(SentencePiece.load(folder / _SOURCE), SentencePiece.load(folder / _TARGET))
