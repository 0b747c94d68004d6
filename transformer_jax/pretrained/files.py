"""The files of a checkpoint beside its weights: of the tokenizer, and the settings of generation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_jax.data.tokenizer import SpecialTokens
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
FORCED = "forced_bos_token_id"


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
    FORCED,
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
            self.data[GENERATION] = json_bytes(fields | {FORCED: target.before[0]})

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
