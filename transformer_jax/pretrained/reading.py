"""The tokenizers of a checkpoint, read from its files.

tokenizer.json comes first, since it says all; else a SentencePiece model, whose pieces have the ids that their family
gives them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from transformer_jax.config import ModelConfig
from transformer_jax.data.tokenizer import Public, PublicSide, SpecialTokens
from transformer_jax.data.tokenizer.json_tokenizer import open_json
from transformer_jax.data.tokenizer.sentence_piece import model_pieces
from transformer_jax.errors import InputError
from transformer_jax.pretrained.files import BOTH, FORCED, GENERATION, JSON, MODELS, Files, by_id
from transformer_jax.pretrained.settings import Settings
from transformer_jax.pretrained.words import Frames, Sides, Table, Words

_GAP = r"<extra_id_\d+>"  # what T5 writes for a part that is left out


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
    is_json = JSON in files.data
    known = _of_json(files, config.vocab_size) if is_json else _of_models(files, config.vocab_size, table)
    words = Words(known.pieces, settings, files, languages)
    sides = _forced(frames(words, config), settings, files, config.vocab_size)
    words.check_used()
    if not is_json:
        _check_special(files.folder, known.pieces, sides)
    source, target = (
        PublicSide(name, _with_others(special, known.others), None if is_json else tuple(known.pieces), known.added)
        for name, special in zip(known.names, sides, strict=True)
    )
    files.tell_languages(languages, settings, target.special)
    model_type = settings.text("model_type")
    return Public(model_type, dict(settings.fields), config.vocab_size, source, target, dict(files.data))


class _Vocabulary(NamedTuple):
    names: tuple[str, str]  # the file of each side
    pieces: Sequence[str]  # by id, "" where there is none
    others: Sequence[int]  # that write nothing
    added: tuple[str, ...] = ()  # that are cut out of a text whole


def _of_models(files: Files, vocab_size: int, table: Table) -> _Vocabulary:
    names = _models(files)
    own, new = files.with_added(table(model_pieces(files.data[names[0]], str(files.folder / names[0])), files))
    if len(own) > vocab_size:
        raise InputError(
            f"{files.folder}: its tokenizer has {len(own)} pieces, but the model has a vocabulary of {vocab_size}"
        )
    silent = {"<s>", "</s>", "<pad>", "<mask>", *files.additional()} - new
    return _Vocabulary(
        names,
        pieces=[*own, *[""] * (vocab_size - len(own))],
        others=[token for token, piece in enumerate(own) if piece in silent or re.fullmatch(_GAP, piece)],
        added=tuple(piece for piece in own if piece in new or re.fullmatch(rf">>.+<<|{_GAP}", piece)),
    )


def _of_json(files: Files, vocab_size: int) -> _Vocabulary:
    origin = files.folder / JSON
    try:
        tokenizer = open_json(files.data[JSON].decode(), str(origin))
    except UnicodeDecodeError:
        raise InputError(f"{origin}: not UTF-8; download it again") from None
    ids: Mapping[str, int] = tokenizer.get_vocab()
    largest = max(ids.values(), default=-1)
    if largest >= vocab_size:
        raise InputError(f"{origin}: a piece with the id {largest}, but the model has a vocabulary of {vocab_size}")
    special = [token for token, own in tokenizer.get_added_tokens_decoder().items() if own.special]
    return _Vocabulary((JSON, JSON), by_id(ids), special)


def _with_others(special: SpecialTokens, others: Sequence[int]) -> SpecialTokens:
    return replace(special, others=tuple(token for token in others if token != special.unk))


def _forced(sides: Sides, settings: Settings, files: Files, vocab_size: int) -> Sides:
    """The sides, with the first token that is forced before every target, where the files name one and nothing else is.

    Raises:
        InputError: where there is no such token.
    """
    source, target = sides
    said = files.settings(GENERATION) if GENERATION in files.data else settings
    if said.get(FORCED, None) is None or target.before:
        return sides
    forced = said.number(FORCED)
    if not 0 <= forced < vocab_size:
        raise InputError(f"{said.origin}: {FORCED}={forced}: not in the vocabulary of {vocab_size}")
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
