"""The tokenizers of a public checkpoint: its own files, and what it takes to read them without knowing its family."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.data.tokenizer.base import SpecialTokens, Tokenizer
from transformer_jax.data.tokenizer.json_tokenizer import JsonTokenizer, with_added
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

    def with_tokens(self, tokens: Sequence[str]) -> "Public":
        """The same with more pieces, which are cut out of a text whole; they get the rows that a model has to spare.

        The files say it too: as pieces that were added, and in vocab.json where there is one.

        Raises:
            InputError: on a piece that is there already.
        """
        if not tokens:
            return self
        if self.source.file.endswith(".json"):
            data, ids = with_added(self.files[self.source.file], tokens)
            size, files, sides = max(self.vocab_size, *(1 + token for token in ids)), {self.source.file: data}, self
        else:
            sides = self._with_pieces(tokens)
            size, files = sides.vocab_size, sides._files_with(tokens)
        return dataclasses.replace(sides, vocab_size=size, files={**self.files, **files})

    def _with_pieces(self, tokens: Sequence[str]) -> "Public":
        before = self.source.pieces
        assert before is not None  # as SentencePiece models of public checkpoints have them
        used = max((place for place, piece in enumerate(before) if piece), default=-1) + 1
        twice = next((token for token in tokens if token in before), None)
        if twice is not None:
            raise InputError(f"new_tokens: {twice!r} is in the vocabulary already")
        pieces = (*before[:used], *tokens, *before[used + len(tokens) :])
        source, target = (
            dataclasses.replace(side, pieces=pieces, added=(*side.added, *tokens))
            for side in (self.source, self.target)
        )
        return dataclasses.replace(self, vocab_size=len(pieces), source=source, target=target)

    def _files_with(self, tokens: Sequence[str]) -> dict[str, bytes]:
        assert self.source.pieces is not None
        ids = {token: self.source.pieces.index(token) for token in tokens}
        config = json.loads(self.files.get("tokenizer_config.json", b"{}"))
        added = {str(token): {"content": piece, "normalized": False, "special": False} for piece, token in ids.items()}
        config["added_tokens_decoder"] = {**config.get("added_tokens_decoder", {}), **added}
        found = {"tokenizer_config.json": config}
        if "vocab.json" in self.files:
            found["vocab.json"] = {**json.loads(self.files["vocab.json"]), **ids}
        return {name: (json.dumps(own, indent=2, ensure_ascii=False) + "\n").encode() for name, own in found.items()}

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
