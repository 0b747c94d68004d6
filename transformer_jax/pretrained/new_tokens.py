"""More pieces for the tokenizer of a public checkpoint."""

from collections.abc import Sequence
from dataclasses import replace

from transformer_jax.data.tokenizer import Public
from transformer_jax.data.tokenizer.json_tokenizer import open_json
from transformer_jax.errors import InputError
from transformer_jax.pretrained.files import JSON, TOKENIZER, json_bytes, load_json


def with_tokens(public: Public, tokens: Sequence[str]) -> Public:
    """The same with more pieces, which are cut out of a text whole; they get the rows that a model has to spare.

    The files say it too, as transformers writes tokens that were added.

    Raises:
        InputError: on a piece that is there already.
    """
    if not tokens:
        return public
    return _in_json(public, tokens) if public.source.file == JSON else _in_pieces(public, tokens)


def _in_json(public: Public, tokens: Sequence[str]) -> Public:
    tokenizer = open_json(public.files[JSON].decode(), JSON)
    _check(tokens, tokenizer.get_vocab())
    tokenizer.add_tokens(list(tokens))
    size = max(public.vocab_size, *(1 + tokenizer.token_to_id(token) for token in tokens))
    return replace(public, vocab_size=size, files={**public.files, JSON: tokenizer.to_str().encode()})


def _in_pieces(public: Public, tokens: Sequence[str]) -> Public:
    before = public.source.pieces
    assert before is not None  # as SentencePiece models of public checkpoints have them
    _check(tokens, before)
    used = 1 + max((place for place, piece in enumerate(before) if piece), default=-1)
    pieces = (*before[:used], *tokens, *before[used + len(tokens) :])
    source, target = (
        replace(side, pieces=pieces, added=(*side.added, *tokens)) for side in (public.source, public.target)
    )
    config = load_json(public.files.get(TOKENIZER, b"{}"), TOKENIZER)
    added = {
        str(used + place): {"content": token, "normalized": False, "special": False}
        for place, token in enumerate(tokens)
    }
    config["added_tokens_decoder"] = {**config.get("added_tokens_decoder", {}), **added}
    files = {**public.files, TOKENIZER: json_bytes(config)}
    return replace(public, vocab_size=len(pieces), source=source, target=target, files=files)


def _check(tokens: Sequence[str], known: Sequence[str] | dict[str, int]) -> None:
    for token in tokens:
        if token in known:
            raise InputError(f"new_tokens: {token!r} is in the vocabulary already")
