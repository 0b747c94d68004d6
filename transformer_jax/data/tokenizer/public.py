"""The tokenizers of a public checkpoint: its own files, and what it takes to read them without knowing its family."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_jax.data.tokenizer.base import SpecialTokens, Tokenizer
from transformer_jax.data.tokenizer.json_tokenizer import JsonTokenizer
from transformer_jax.data.tokenizer.sentence_piece import SentencePiece
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically

NAME = "public.json"


@dataclasses.dataclass(frozen=True)
class PublicSide:
    """How one side is read."""

    file: str  # a SentencePiece model or a tokenizer.json, among the files
    special: SpecialTokens
    pieces: tuple[str, ...] | None = None  # of a SentencePiece model, by id, where they are not the model's own
    added: tuple[str, ...] = ()  # pieces that are cut out of a text whole

    @staticmethod
    def of(fields: Mapping[str, Any]) -> "PublicSide":
        """The side that was written as JSON."""
        special: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields["special"].items()
        }
        pieces = None if fields["pieces"] is None else tuple(fields["pieces"])
        return PublicSide(fields["file"], SpecialTokens(**special), pieces, tuple(fields["added"]))


@dataclasses.dataclass(frozen=True)
class Public:
    """The files of a checkpoint beside its weights."""

    model_type: str  # of its config.json
    settings: Mapping[str, Any]  # all that config.json says
    vocab_size: int
    source: PublicSide
    target: PublicSide
    files: Mapping[str, bytes]  # the tokenizer's and the settings of generation, by name

    def tokenizer(self, side: PublicSide, folder: str) -> Tokenizer:
        """The tokenizer of one side.

        Raises:
            InputError: on a file that is damaged, by its path in the folder.
        """
        data, origin = self.files[side.file], f"{folder}/{side.file}"
        if not side.file.endswith(".json"):
            return SentencePiece(data, origin, side.special, side.pieces, side.added)
        try:
            return JsonTokenizer(data.decode(), origin, side.special, self.vocab_size)
        except UnicodeDecodeError:
            raise InputError(f"{origin}: not UTF-8; download it again") from None

    def save(self, folder: Path) -> None:
        """Writes all files into `folder`, which is made if need be.

        Raises:
            InputError: when they cannot be written.
        """
        facts = {name: value for name, value in dataclasses.asdict(self).items() if name != "files"}
        facts["files"] = sorted(self.files)
        for name, data in self.files.items():
            write_atomically(folder / name, data)
        write_atomically(folder / NAME, json.dumps(facts, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Public":
        """What `save` wrote.

        Raises:
            InputError: on a file that is missing or damaged.
        """
        try:
            facts = json.loads((folder / NAME).read_text(encoding="utf-8"))
            files = {name: (folder / name).read_bytes() for name in facts.pop("files")}
            facts |= {name: PublicSide.of(facts[name]) for name in ("source", "target")}
            return cls(**facts, files=files)
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{folder / NAME}: damaged; import the checkpoint again") from None
