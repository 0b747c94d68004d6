"""Text to ids and back: SentencePiece, trained on the training text, the same bytes every time."""

import dataclasses
import functools
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsIndex

import sentencepiece

from transformer_jax.config import ModelConfig, TokenizerConfig
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2


_LONGEST_LINE = 2**30  # bytes; SentencePiece drops longer lines from the training text without an error
_JOINT, _SOURCE, _TARGET = "joint.model", "source.model", "target.model"


def is_text(text: str) -> bool:
    """Whether a string has an encoding: half of a surrogate pair has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Tokenizer:
    """One SentencePiece model.

    Args:
        model: the serialised SentencePiece model.
        origin: where it comes from, for messages.

    Raises:
        InputError: on bytes that are no SentencePiece model, and on a model with other special ids.
    """

    def __init__(self, model: bytes, origin: str = "the tokenizer") -> None:
        self._model = model
        try:
            if not model:
                raise RuntimeError("empty")  # SentencePiece takes no bytes for a model and crashes later
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise InputError(f"{origin}: not a SentencePiece model; give the one this project wrote") from None
        processor = self._processor
        found = {"pad": processor.pad_id(), "eos": processor.eos_id(), "unk": processor.unk_id()}
        wanted = {"pad": PAD_ID, "eos": EOS_ID, "unk": UNK_ID}
        if found != wanted:
            raise InputError(f"{origin}: a SentencePiece model with the special ids {found}, not {wanted}")

    @property
    def vocab_size(self) -> int:
        """Number of pieces, the special ones included."""
        return int(self._processor.get_piece_size())

    @functools.cached_property
    def digest(self) -> str:
        """The identity of this tokenizer: sha256 of its model, in hex."""
        return hashlib.sha256(self._model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without an end token; of an empty text none.

        Raises:
            InputError: on what is no text.
        """
        try:
            return list(self._processor.encode(list(texts)))
        except TypeError:
            wrong = [text for text in texts if not is_text(text)]
            if not wrong:
                raise
            raise InputError(f"{wrong[0]!r}: no text, but half of a surrogate pair") from None

    def decode(self, ids: Iterable[Iterable[SupportsIndex]]) -> list[str]:
        """The text of each sequence of ids; padding and end tokens are left out."""
        kept = [[int(token) for token in sentence if token not in (PAD_ID, EOS_ID)] for sentence in ids]
        return list(self._processor.decode(kept))

    def pieces(self, ids: Iterable[SupportsIndex]) -> list[str]:
        """The piece of each id, as in the vocabulary, where U+2581 marks the start of a word."""
        return [self._processor.id_to_piece(int(token)) for token in ids]

    def knows(self, ids: Iterable[int]) -> bool:
        """Whether none of these ids stands for what the vocabulary cannot write."""
        return UNK_ID not in ids

    def ids_of(self, words: Iterable[str]) -> list[int]:
        """The pieces that write these words; of a mark, such as a comma, also the one without a space before it.

        Raises:
            InputError: naming a word that the vocabulary cannot write.
        """
        found = set[int]()
        for word in words:
            (ids,) = self.encode([word])
            if not self.knows(ids):
                raise InputError(f"{word!r} cannot be written with the pieces of the vocabulary")
            found.update(ids)
            if not any(map(str.isalnum, word)):
                found.update(self._ids[mark] for mark in word.split() if mark in self._ids)
        return sorted(found)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """The id of every piece of text."""
        ids = range(UNK_ID + 1, self.vocab_size)
        return dict(zip(self.pieces(ids), ids, strict=True))

    def save(self, path: Path) -> None:
        """Writes the SentencePiece model to `path`.

        Raises:
            InputError: when it cannot be written.
        """
        write_atomically(path, self._model)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """The tokenizer of a file.

        Raises:
            InputError: on a file that is missing, no SentencePiece model, or one with other special ids.
        """
        try:
            model = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: no tokenizer here: {error.strerror}") from None
        return cls(model, str(path))


@dataclasses.dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of both sides: one and the same object where the vocabulary is joint."""

    source: Tokenizer
    target: Tokenizer

    @property
    def joint(self) -> bool:
        """Whether both sides are one."""
        return self.source is self.target

    @functools.cached_property
    def digest(self) -> str:
        """The identity of both, in hex."""
        return hashlib.sha256(f"{self.source.digest} {self.target.digest}".encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes joint.model, or source.model and target.model, into `folder`, which is made if need be.

        Raises:
            InputError: when they cannot be written.
        """
        if self.joint:
            self.source.save(folder / _JOINT)
        else:
            self.source.save(folder / _SOURCE)
            self.target.save(folder / _TARGET)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizers":
        """The tokenizers that `save` wrote.

        Raises:
            InputError: on a file that is missing or foreign, by its path.
        """
        if (folder / _JOINT).exists():
            joint = Tokenizer.load(folder / _JOINT)
            return cls(joint, joint)
        if not (folder / _SOURCE).exists() and not (folder / _TARGET).exists():
            raise InputError(f"{folder}: no tokenizer here: neither {_JOINT} nor {_SOURCE} and {_TARGET}")
        return cls(Tokenizer.load(folder / _SOURCE), Tokenizer.load(folder / _TARGET))


def train_tokenizers(
    config: TokenizerConfig, model: ModelConfig, sources: Iterable[str], targets: Iterable[str]
) -> Tokenizers:
    """Tokenizers of the sizes that `model` asks for, trained on both sides of the training text.

    The same text in the same order gives the same bytes.

    Raises:
        InputError: on a vocabulary larger than the text allows, or too small for its characters.
    """
    if config.joint:
        joint = _train(config, "model.vocab_size", model.vocab_size, _each(sources, targets))
        return Tokenizers(joint, joint)
    if model.source_vocab_size is None:
        source = _train(config, "model.vocab_size", model.vocab_size, sources)
    else:
        source = _train(config, "model.source_vocab_size", model.source_vocab_size, sources)
    return Tokenizers(source, _train(config, "model.vocab_size", model.vocab_size, targets))


def _each(*sides: Iterable[str]) -> Iterable[str]:
    for side in sides:
        yield from side


def _train(config: TokenizerConfig, flag: str, vocab_size: int, texts: Iterable[str]) -> Tokenizer:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=config.algorithm,
            vocab_size=vocab_size,
            character_coverage=config.character_coverage,
            split_digits=config.split_digits,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            max_sentence_length=_LONGEST_LINE,
            num_threads=1,  # the number of threads is written into the model, and sums of unigram depend on it
            minloglevel=2,  # errors come as exceptions; the rest is noise
        )
    except RuntimeError as error:
        raise InputError(_explain(flag, vocab_size, str(error))) from None
    return Tokenizer(model.getvalue())


def _explain(flag: str, vocab_size: int, message: str) -> str:
    if largest := re.search(r"set it to a value <= (\d+)", message):
        return f"{flag}={vocab_size}: more pieces than the training text allows; at most {largest[1]}"
    if smallest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"{flag}={vocab_size}: too few pieces for the characters of the training text; "
            f"at least {smallest[1]}, or a lower tokenizer.character_coverage"
        )
    if "insert_id" in message:
        return f"{flag}={vocab_size}: too few pieces: the special ones alone are {UNK_ID + 1}"
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return "no tokenizer can be trained: the training text is empty"
    return f"{flag}={vocab_size}: SentencePiece cannot train on this: {' '.join(message.split())}"
