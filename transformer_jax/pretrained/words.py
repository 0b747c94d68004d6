"""The tokenizer files of a checkpoint: which they are, what their pieces are called, and what stands around a sentence.

tokenizer.json comes first, since it says all; else a SentencePiece model, whose pieces have the ids that their family
gives them.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from transformer_jax.config import ModelConfig
from transformer_jax.data.tokenizer import Public, PublicSide, SpecialTokens
from transformer_jax.data.tokenizer.json_tokenizer import open_json
from transformer_jax.data.tokenizer.sentence_piece import model_pieces
from transformer_jax.errors import InputError
from transformer_jax.pretrained.settings import Settings

JSON = "tokenizer.json"
BOTH = ("source.spm", "target.spm")  # of Marian, whose two models share one table of pieces
MODELS = ("sentencepiece.bpe.model", "spiece.model", "sentencepiece.model", "spm.model")
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer_config.json"
_BESIDE = (
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    TOKENIZER,
    GENERATION,
)
FILES = (JSON, *BOTH, *MODELS, *_BESIDE)  # all that belong to a tokenizer, and the settings of generation
_SIDES = "source_language", "target_language"
_GAP = r"<extra_id_\d+>"  # what T5 writes for a part that is left out
_FORCED = "forced_bos_token_id"
_LANGUAGE = re.compile(r">>.+<<|__[a-z]+__|[a-z]{2}_[A-Z]{2}|[a-z]{3}_[A-Z][a-z]{3}")  # codes, as families write them


def load_json(data: bytes, origin: str) -> dict[str, Any]:
    """The fields of a file of JSON.

    Raises:
        InputError: where it is no JSON, or no object.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{origin}: no JSON; download it again") from None
    if not isinstance(fields, dict):
        raise InputError(f"{origin}: no JSON object; download it again")
    return fields


def json_bytes(fields: Any) -> bytes:
    """A file of JSON."""
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


_GENERATED = (
    "bad_words_ids",
    "bos_token_id",
    "decoder_start_token_id",
    "early_stopping",
    "eos_token_id",
    _FORCED,
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beams",
    "pad_token_id",
    "repetition_penalty",
    "suppress_tokens",
)


def generation_of(files: Mapping[str, bytes], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of generation_config.json; where there is none, those that config.json has of it.

    Raises:
        InputError: where it is no JSON, or no object.
    """
    if GENERATION in files:
        return load_json(files[GENERATION], GENERATION)
    return {name: settings[name] for name in _GENERATED if settings.get(name) is not None}


class Files:
    """The files of a checkpoint beside its weights, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data: dict[str, bytes] = {}
        for name in FILES:
            try:
                self.data[name] = (folder / name).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InputError(f"{folder / name}: cannot be read: {error.strerror}") from None

    def settings(self, name: str) -> Settings:
        """What a file of JSON says; nothing where it is not there.

        Raises:
            InputError: where it is no JSON, or no object.
        """
        origin = str(self.folder / name)
        return Settings(load_json(self.data.get(name, b"{}"), origin), origin)

    def table(self) -> list[str] | None:
        """The pieces of vocab.json by id, where there is one.

        Raises:
            InputError: where that is no table of pieces, each with an id of its own.
        """
        if "vocab.json" not in self.data:
            return None
        settings = self.settings("vocab.json")
        ids = Settings({"ids": list(settings.fields.values())}, settings.origin).numbers("ids")
        if len(set(ids)) < len(ids) or max(ids, default=-1) > 2 * len(ids):
            raise InputError(f"{settings.origin}: no table of pieces with an id each; download it again")
        return by_id(settings.fields)

    def with_added(self, pieces: list[str]) -> tuple[list[str], set[str]]:
        """The pieces with those that were added to them later, and which these are; special ones are not among them.

        Raises:
            InputError: where the files are damaged.
        """
        settings = self.settings(TOKENIZER)
        origin, found = f"{settings.origin}: added_tokens_decoder", settings.get("added_tokens_decoder", {})
        if not isinstance(found, dict) or not all(own.isdecimal() and len(own) < 9 for own in found):
            raise InputError(f"{origin}: no table of tokens; download it again")
        special = {_content(own, origin) for own in found.values() if isinstance(own, dict) and own.get("special")}
        added = {_content(own, origin): int(token) for token, own in found.items()}
        new = {piece: token for piece, token in added.items() if piece not in special and piece not in pieces}
        if any(token < len(pieces) and pieces[token] for token in new.values()) or len(set(new.values())) < len(new):
            raise InputError(f"{origin}: two pieces of one id; download it again")
        room = [""] * max(1 + max(new.values(), default=-1) - len(pieces), 0)
        by_token = {token: piece for piece, token in new.items()}
        return [by_token.get(token, piece) for token, piece in enumerate([*pieces, *room])], set(new)

    def tell_languages(
        self, languages: tuple[str | None, str | None], settings: Settings, target: SpecialTokens
    ) -> None:
        """Writes the languages into the files, so that what goes out again is opened for the same ones."""
        told = {own: code for own, code in zip(("src_lang", "tgt_lang"), languages, strict=True) if code is not None}
        if told:
            self.data[TOKENIZER] = json_bytes(self.settings(TOKENIZER).fields | told)
        if told and target.before:
            fields = generation_of(self.data, settings.fields)
            self.data[GENERATION] = json_bytes(fields | {_FORCED: target.before[0]})

    def additional(self) -> list[str]:
        """The special tokens that the tokenizer has beside the usual ones, languages say, in the order of their ids."""
        for name in ("special_tokens_map.json", TOKENIZER):
            settings = self.settings(name)
            for field in ("additional_special_tokens", "extra_special_tokens"):
                found = settings.get(field, None)
                if isinstance(found, list) and found:
                    return [_content(own, f"{settings.origin}: {field}") for own in found]
        return []


def _content(token: Any, origin: str) -> str:
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise InputError(f"{origin}: {token!r} is no token; download it again")
    return text


def by_id(ids: Mapping[str, int]) -> list[str]:
    """The piece of every id, "" where there is none."""
    pieces = [""] * (1 + max(ids.values(), default=-1))
    for piece, token in ids.items():
        pieces[token] = piece
    return pieces


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


def read_words(
    files: Files,
    settings: Settings,
    config: ModelConfig,
    table: Table,
    frames: Frames,
    languages: tuple[str | None, str | None],
) -> Public:
    """The tokenizers of a checkpoint.

    Args:
        files: of the checkpoint.
        settings: of its config.json.
        config: of the model, whose vocabulary may have more rows than the tokenizer has pieces.
        table: the pieces of a SentencePiece model by the ids of the family.
        frames: the special tokens of both sides.
        languages: of the source and the target, as the family writes them.

    Raises:
        InputError: where there is no tokenizer, on files that are damaged, and on languages that are needed or unknown.
    """
    folder, found, vocab_size = files.folder, files.data, config.vocab_size
    added: tuple[str, ...] = ()
    others: list[int]
    pieces: Sequence[str]
    stored: tuple[str, ...] | None = None
    if JSON in found:
        names = (JSON, JSON)
        pieces, others = _json_pieces(found[JSON], str(folder / JSON), vocab_size)
    else:
        names = _models(files)
        own = table(model_pieces(found[names[0]], str(folder / names[0])), files)
        own, new = files.with_added(own)
        if len(own) > vocab_size:
            raise InputError(
                f"{folder}: its tokenizer has {len(own)} pieces, but the model has a vocabulary of {vocab_size}"
            )
        pieces = stored = (*own, *[""] * (vocab_size - len(own)))
        added = tuple(piece for piece in own if piece in new or re.fullmatch(rf">>.+<<|{_GAP}", piece))
        silent = {"<s>", "</s>", "<pad>", "<mask>", *files.additional()} - new
        others = [token for token, piece in enumerate(own) if piece in silent or re.fullmatch(_GAP, piece)]
    words = Words(pieces, settings, files, languages)
    sides = _forced(frames(words, config), settings, files, vocab_size)
    words.check_used()
    if stored is not None:
        _check_special(folder, stored, sides)
    source, target = (
        PublicSide(name, _with_others(special, others), stored, added)
        for name, special in zip(names, sides, strict=True)
    )
    files.tell_languages(languages, settings, target.special)
    model_type = settings.text("model_type")
    return Public(model_type, dict(settings.fields), vocab_size, source, target, dict(found))


def _with_others(special: SpecialTokens, others: Sequence[int]) -> SpecialTokens:
    return replace(special, others=tuple(token for token in others if token != special.unk))


def _forced(sides: Sides, settings: Settings, files: Files, vocab_size: int) -> Sides:
    """The sides, with the first token that is forced before every target, where the files name one and nothing else is.

    Raises:
        InputError: where there is no such token.
    """
    source, target = sides
    said = files.settings(GENERATION) if GENERATION in files.data else settings
    if said.get(_FORCED, None) is None or target.before:
        return sides
    forced = said.number(_FORCED)
    if not 0 <= forced < vocab_size:
        raise InputError(f"{said.origin}: {_FORCED}={forced}: not in the vocabulary of {vocab_size}")
    return source, replace(target, before=(forced,))


def _check_special(folder: Path, pieces: Sequence[str], sides: Sides) -> None:
    """A SentencePiece model has its padding, its end and what stands for all that it cannot write."""
    for special in sides:
        for name, token in (("padding", special.pad), ("the end", special.eos), ("the unknown", special.unk)):
            if token is None or not pieces[token]:
                raise InputError(
                    f"{folder}: {name} is not in the vocabulary of its tokenizer; download its files again"
                )


def _models(files: Files) -> tuple[str, str]:
    if all(name in files.data for name in BOTH):
        return BOTH
    for name in MODELS:
        if name in files.data:
            return name, name
    raise InputError(
        f"{files.folder}: no tokenizer here: neither {JSON} nor {' and '.join(BOTH)} nor {' nor '.join(MODELS[:2])}"
    )


def _json_pieces(data: bytes, origin: str, vocab_size: int) -> tuple[list[str], list[int]]:
    """The pieces of a tokenizer.json by id, and which of them are special."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{origin}: not UTF-8; download it again") from None
    tokenizer = open_json(text, origin)
    ids: Mapping[str, int] = tokenizer.get_vocab()
    largest = max(ids.values(), default=-1)
    if largest >= vocab_size:
        raise InputError(f"{origin}: a piece with the id {largest}, but the model has a vocabulary of {vocab_size}")
    return by_id(ids), [token for token, own in tokenizer.get_added_tokens_decoder().items() if own.special]


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
