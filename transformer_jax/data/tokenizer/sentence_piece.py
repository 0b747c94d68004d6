"""SentencePiece models, of this project's making or of public checkpoints."""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import sentencepiece

from transformer_jax.data.tokenizer.base import SpecialTokens, Tokenizer, check_texts
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2  # of the models that are trained here
OWN = SpecialTokens(pad=PAD_ID, eos=EOS_ID, unk=UNK_ID, start=PAD_ID)


def mask_piece(index: int) -> str:
    """The piece that stands for masked text, by its number."""
    return f"<mask_{index}>"


def open_model(model: bytes, origin: str) -> sentencepiece.SentencePieceProcessor:
    """The processor of a serialised model.

    Raises:
        InputError: on bytes that are none, by their origin.
    """
    try:
        if not model:
            raise RuntimeError("empty")  # SentencePiece takes no bytes for a model and crashes later
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        raise InputError(f"{origin}: not a SentencePiece model") from None


def model_pieces(model: bytes, origin: str) -> list[str]:
    """All pieces of a serialised model, in its order.

    Raises:
        InputError: as `open_model`.
    """
    processor = open_model(model, origin)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


class SentencePiece(Tokenizer):
    """One SentencePiece model, whose ids may be others than its own.

    Args:
        model: the serialised model.
        origin: where it comes from, for messages.
        special: the special tokens.
        pieces: the piece of every id, "" where it has none; None where ids are those of the model.
        added: pieces that are cut out of a text whole, before the model sees the rest.

    Raises:
        InputError: on bytes that are no SentencePiece model, and on one with other special ids than `special` has.
    """

    def __init__(
        self,
        model: bytes,
        origin: str = "the tokenizer",
        special: SpecialTokens = OWN,
        pieces: Sequence[str] | None = None,
        added: Sequence[str] = (),
    ) -> None:
        self._model, self.special, self._pieces, self._added = model, special, pieces, tuple(added)
        self._processor = processor = open_model(model, origin)
        found = {"pad": processor.pad_id(), "eos": processor.eos_id(), "unk": processor.unk_id()}
        wanted = {"pad": special.pad, "eos": special.eos, "unk": special.unk}
        if pieces is None and found != wanted:
            raise InputError(f"{origin}: a SentencePiece model with the special ids {found}, not {wanted}")
        if pieces is None:
            self.special = dataclasses.replace(special, others=self.masks)
        self._ids = {} if pieces is None else {piece: token for token, piece in enumerate(pieces) if piece}
        self._cut = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))))

    @property
    def vocab_size(self) -> int:
        """Number of pieces, the special ones included."""
        return int(self._processor.get_piece_size()) if self._pieces is None else len(self._pieces)

    @functools.cached_property
    def masks(self) -> tuple[int, ...]:
        """The ids that stand for masked text, in the order of their numbers."""
        if self._pieces is not None:
            return super().masks
        controls = filter(self._processor.is_control, range(UNK_ID + 1, self.vocab_size))
        return tuple(controls)

    @functools.cached_property
    def scores(self) -> dict[int, float]:
        """What each piece counts in a segmentation, by its id; others than these are in none, or are cut out before."""
        own = [(token, piece) for token, piece in enumerate(self._proto.pieces) if piece.type == piece.NORMAL]
        ids = [token if self._pieces is None else self._writing.get(piece.piece) for token, piece in own]
        return {known: piece.score for known, (_, piece) in zip(ids, own, strict=True) if known is not None}

    @functools.cached_property
    def _proto(self) -> Any:
        from sentencepiece import sentencepiece_model_pb2

        messages: Any = sentencepiece_model_pb2  # made as it is imported
        return messages.ModelProto.FromString(self._model)

    @property
    def algorithm(self) -> Literal["bpe", "unigram"]:
        """How the model cuts words; where it knows words or characters alone there is but one way, by unigram too."""
        trained = self._proto.trainer_spec
        return "bpe" if trained.model_type == trained.BPE else "unigram"

    @functools.cached_property
    def digest(self) -> str:
        """The identity of this tokenizer: sha256 of its model and what was said beside it, in hex."""
        beside = b"" if self._pieces is None else repr((self.special, list(self._pieces), self._added)).encode()
        return hashlib.sha256(self._model + beside).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without what stands around them; of a blank text none.

        Raises:
            InputError: on what is no text.
        """
        try:
            return [self._encode(text) for text in texts] if self._added else self._encode_all(list(texts))
        except (TypeError, UnicodeEncodeError):
            check_texts(texts)
            raise

    def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        if self._pieces is None:
            encoded: list[list[int]] = self._processor.encode(texts)
            return encoded
        pieces: list[list[str]] = self._processor.encode(texts, out_type=str)
        return [self._looked_up(own) if text.strip() else [] for text, own in zip(texts, pieces, strict=True)]

    def _looked_up(self, pieces: Sequence[str]) -> list[int]:
        """The ids of pieces; what is unknown to the model may be a piece of the other side, and known."""
        unknown = -1 if self.special.unk is None else self.special.unk
        return [self._writing.get(piece, unknown) for piece in pieces]

    @functools.cached_property
    def _writing(self) -> dict[str, int]:
        """The id of every piece that a text may have: none of what stands around sentences."""
        silent = self.special.silent
        return {piece: token for piece, token in self._ids.items() if token not in silent and piece not in self._added}

    def _encode(self, text: str) -> list[int]:
        ids, place = list[int](), 0
        for match in self._cut.finditer(text):
            ids += [*self._encode_all([text[place : match.start()]])[0], self._ids[match[0]]]
            place = match.end()
        return [*ids, *self._encode_all([text[place:]])[0]]

    def decode(self, ids: Iterable[Iterable[SupportsIndex]]) -> list[str]:
        """The text of each sequence of ids; special ones but the unknown one write nothing."""
        silent = self.special.silent
        kept = [[int(token) for token in sentence if token not in silent] for sentence in ids]
        if self._pieces is None:
            return list(self._processor.decode(kept))
        return [self._decode(sentence) for sentence in kept]

    def _decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; pieces that were cut out of a text are words of their own."""
        parts: list[list[str]] = [[]]
        unknown = self._processor.id_to_piece(self._processor.unk_id())
        for token, piece in zip(ids, self.pieces(ids), strict=True):
            if piece in self._added:
                parts += [[piece], []]
            else:
                parts[-1].append(unknown if token == self.special.unk else piece)
        texts = [part[0] if part[0] in self._added else self._processor.decode(part) for part in parts if part]
        return " ".join(texts)

    def pieces(self, ids: Iterable[SupportsIndex]) -> list[str]:
        """The piece of each id, as in the vocabulary, where U+2581 marks the start of a word."""
        if self._pieces is None:
            return [self._processor.id_to_piece(int(token)) for token in ids]
        return [self._pieces[int(token)] for token in ids]

    @property
    def model(self) -> bytes:
        """The serialised model."""
        return self._model

    def save(self, path: Path) -> None:
        """Writes the SentencePiece model to `path`.

        Raises:
            InputError: when it cannot be written.
        """
        write_atomically(path, self._model)

    @classmethod
    def load(cls, path: Path) -> "SentencePiece":
        """The tokenizer of a file that was trained here.

        Raises:
            InputError: on a file that is missing, no SentencePiece model, or one with other special ids.
        """
        try:
            model = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: no tokenizer here: {error.strerror}") from None
        return cls(model, str(path))
