"""tokenizer.json, as the tokenizers library writes it: byte-level and other forms of BPE, WordPiece, unigram."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Bool

from transformer_jax.data.tokenizer.base import SPACE, SpecialTokens, Tokenizer, check_texts
from transformer_jax.errors import InputError

_BYTE_SPACE = "\u0120"  # stands for a space in the pieces of byte-level BPE
_CONTINUES = "##"  # in front of the pieces of WordPiece that begin no word


class JsonTokenizer(Tokenizer):
    """The tokenizer of a tokenizer.json.

    Args:
        text: of the file.
        origin: where it comes from, for messages.
        special: the special tokens.
        vocab_size: ids there are, those of the model; a tokenizer may use fewer.

    Raises:
        InputError: where the tokenizers library is not installed, cannot read the text, or has more ids.
    """

    def __init__(self, text: str, origin: str, special: SpecialTokens, vocab_size: int) -> None:
        self._text, self.special, self._vocab_size = text, special, vocab_size
        self._tokenizer = open_json(text, origin)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = False
        if self._tokenizer.get_vocab_size() > vocab_size:
            raise InputError(
                f"{origin}: {self._tokenizer.get_vocab_size()} pieces, but the model has a vocabulary of {vocab_size}"
            )

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""
        return self._vocab_size

    @functools.cached_property
    def digest(self) -> str:
        """The identity of this tokenizer: sha256 of its file and its special tokens, in hex."""
        return hashlib.sha256(repr((self._text, self.special, self._vocab_size)).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without what stands around them; of a blank text none.

        Raises:
            InputError: on what is no text.
        """
        check_texts(texts)
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [self._without_marks(own.ids) if text.strip() else [] for text, own in zip(texts, found, strict=True)]

    def _without_marks(self, ids: Sequence[int]) -> list[int]:
        """The ids without what stands around sentences: written in a text, padding say is unknown, not padding."""
        marks, unknown = self.special.marks, [] if self.special.unk is None else [self.special.unk]
        return [own for token in ids for own in (unknown if token in marks else [token])]

    def decode(self, ids: Iterable[Iterable[SupportsIndex]]) -> list[str]:
        """The text of each sequence of ids; special ones write nothing."""
        silent = self.special.silent
        kept = [[int(token) for token in sentence if token not in silent] for sentence in ids]
        return list(self._tokenizer.decode_batch(kept, skip_special_tokens=True))

    def pieces(self, ids: Iterable[SupportsIndex]) -> list[str]:
        """The piece of each id, where U+2581 marks the start of a word; "" where there is none."""
        found = (self._tokenizer.id_to_token(int(token)) for token in ids)
        return ["" if piece is None else piece.replace(_BYTE_SPACE, SPACE) for piece in found]

    @functools.cached_property
    def starts(self) -> Bool[np.ndarray, " V"]:
        """Which pieces begin a word."""
        continues = np.array([piece.startswith(_CONTINUES) for piece in self.pieces(range(self._vocab_size))])
        return ~continues if continues.any() else super().starts


def open_json(text: str, origin: str) -> Any:
    """The tokenizer of the tokenizers library.

    Raises:
        InputError: where it is not installed, or cannot read the text.
    """
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            f"{origin}: to be read by the library tokenizers, which is missing: pip install 'transformer-jax[hub]'"
        ) from None
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # that library raises nothing narrower
        raise InputError(f"{origin}: not a file of the tokenizers library ({error})") from None
