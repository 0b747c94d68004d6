"""The pieces of a vocabulary by name, and what they mean to a family: special tokens, languages, tables of ids."""

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from transformer_jax.config import ModelConfig
from transformer_jax.data.tokenizer import SpecialTokens
from transformer_jax.errors import InputError
from transformer_jax.pretrained.files import TOKENIZER, Files
from transformer_jax.pretrained.settings import Settings

_SIDES = "source_language", "target_language"
_LANGUAGE = re.compile(r">>.+<<|__[a-z]+__|[a-z]{2}_[A-Z]{2}|[a-z]{3}_[A-Z][a-z]{3}")  # codes, as families write them


class Words:
    """The pieces of a checkpoint's vocabulary, and the languages it was opened for."""

    def __init__(
        self,
        pieces: Sequence[str],
        settings: Settings,
        files: Files,
        languages: tuple[str | None, str | None],
    ) -> None:
        self._ids = {piece: token for token, piece in enumerate(pieces) if piece}
        self.settings, self._files, self.languages = settings, files, languages
        self.used = set[int]()  # the languages that were asked for

    def __contains__(self, piece: str) -> bool:
        return piece in self._ids

    def id(self, *pieces: str) -> int:
        """The id of the first of these pieces that there is.

        Raises:
            InputError: where there is none of them.
        """
        for piece in pieces:
            if piece in self._ids:
                return self._ids[piece]
        raise InputError(f"{self._files.folder}: {' or '.join(pieces)} is not in the vocabulary of its tokenizer")

    def find(self, *pieces: str) -> int | None:
        """The id of the first of these pieces that there is, or None."""
        return next((self._ids[piece] for piece in pieces if piece in self._ids), None)

    def check_used(self) -> None:
        """Checks that the languages that were named mean something to the family.

        Raises:
            InputError: naming one that does not.
        """
        for side, name in enumerate(_SIDES):
            if self.languages[side] is not None and side not in self.used:
                raise InputError(f"{self._files.folder}: {name}={self.languages[side]!r}: it has no such choice")

    def tokenizer_class(self) -> str:
        """What transformers reads the files with, where they say it."""
        return self._files.settings(TOKENIZER).text("tokenizer_class", "")

    def refuse_legacy(self) -> None:
        """Checks that a language stands where NLLB's later tokenizer puts it.

        Raises:
            InputError: where the files ask for the earlier one.
        """
        config = self._files.settings(TOKENIZER)
        if config.get("legacy_behaviour", False):
            raise InputError(f"{config.origin}: legacy_behaviour=true: a language behind the sentence is not supported")

    def language(self, side: int, form: str = "{}") -> int:
        """The code of the source's (0) or the target's (1) language.

        Args:
            side: which.
            form: how the family writes the code of a language, by choice.

        Raises:
            InputError: where none was named and the files say none, and where there is no such code.
        """
        name = _SIDES[side]
        config = self._files.settings(TOKENIZER)
        code = self.languages[side] or config.text(("src_lang", "tgt_lang")[side], "")
        known = sorted(filter(_LANGUAGE.fullmatch, self._ids))
        told = f"{', '.join(known[:4])} ... {known[-1]}" if len(known) > 5 else ", ".join(known)
        if not code:
            raise InputError(f"{self._files.folder}: {name} must be named: it has {told}")
        self.used.add(side)
        found = self.find(*filter(_LANGUAGE.fullmatch, (form.format(code), code)))
        if found is None:
            raise InputError(f"{self._files.folder}: {name}={code!r}: not among {told}")
        return found

    def special(
        self,
        config: ModelConfig,
        eos: int,
        *,
        start: int | None = None,
        before: tuple[int, ...] = (),
        behind: tuple[int, ...] = (),
    ) -> SpecialTokens:
        """The special tokens of a side.

        Args:
            config: of the model.
            eos: the end, where config.json does not say it.
            start: what the decoder starts from; None is what the model says.
            before: what stands in front of every sentence.
            behind: what stands behind its end.
        """
        end = self.settings.number("eos_token_id", eos)
        if not 0 <= end < config.vocab_size or end == config.pad_id:
            raise InputError(
                f"{self.settings.origin}: eos_token_id={end}: with padding {config.pad_id} and a vocabulary of "
                f"{config.vocab_size} there is no such end"
            )
        return SpecialTokens(
            pad=config.pad_id,
            eos=end,
            unk=self.find("<unk>", "[UNK]"),
            start=config.start if start is None else start,
            before=before,
            behind=behind,
        )


Sides: TypeAlias = tuple[SpecialTokens, SpecialTokens]
Frames: TypeAlias = Callable[[Words, ModelConfig], Sides]  # the special tokens of both sides
Table: TypeAlias = Callable[[list[str], Files], list[str]]  # the pieces by id, of those of a model and the files


def ended_by(eos: int) -> Frames:
    """The end stands behind every sentence, and nothing else; this is its id where config.json does not say it."""

    def frames(words: Words, config: ModelConfig) -> Sides:
        special = words.special(config, eos)
        return special, special

    return frames


def same_table(pieces: list[str], files: Files) -> list[str]:
    """Ids are those of vocab.json; of two models without one, nothing says which they are.

    Raises:
        InputError: where there is no vocab.json.
    """
    table = files.table()
    if table is None:
        raise InputError(f"{files.folder / 'vocab.json'}: missing; it says the ids of the pieces")
    return table


def fairseq_table(pieces: list[str], files: Files) -> list[str]:
    """Ids of fairseq: four special tokens, the model's pieces behind its own three, languages, and the mask."""
    return ["<s>", "<pad>", "</s>", "<unk>", *pieces[3:], *files.additional(), "<mask>"]
