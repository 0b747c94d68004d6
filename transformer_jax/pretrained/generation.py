"""How a checkpoint is to be decoded, as its files say it, in our terms."""

from collections.abc import Iterator
from typing import Any

from transformer_jax.config import DecodingConfig
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.errors import InputError
from transformer_jax.pretrained.files import GENERATION, load_json
from transformer_jax.pretrained.settings import Settings


def decoding_of(tokenizers: Tokenizers) -> DecodingConfig:
    """The decoding that the files of a public checkpoint ask for; of tokenizers that were trained here the default.

    Scores are divided by a power of the length, and ends count among the best continuations only, as in transformers.
    Limits are ours: an output is at most `extra_length` tokens longer than its source. Of words that must not come,
    those of one token are suppressed.

    Raises:
        InputError: on settings that are damaged.
    """
    public = tokenizers.public
    if public is None:
        return DecodingConfig()
    settings = Settings(public.settings)
    if GENERATION in public.files:  # then transformers does not look into config.json
        settings = Settings(load_json(public.files[GENERATION], GENERATION), GENERATION)
    suppressed = sorted(set(_suppressed(settings)) - {public.target.special.pad})
    least = max(settings.number("min_length", 0) - 1, settings.number("min_new_tokens", 0), 0)  # without the start
    try:
        return DecodingConfig(
            beam=settings.number("num_beams", 1),
            length_penalty=settings.real("length_penalty", 1.0),
            length_offset=0.0,
            narrow_ends=True,
            min_length=least,
            no_repeated_ngram=settings.number("no_repeat_ngram_size", 0),
            repetition_penalty=settings.real("repetition_penalty", 1.0),
            suppressed=tuple(suppressed),
        )
    except InputError as error:
        raise InputError(f"{settings.origin}: {str(error).removeprefix(f'{settings.origin}: ')}") from None


def _suppressed(settings: Settings) -> Iterator[int]:
    yield from settings.numbers("suppress_tokens")
    words = settings.get("bad_words_ids", [])
    if not isinstance(words, list):
        raise InputError(f"{settings.origin}: bad_words_ids={words!r} is no list of lists of ids")
    for word in words:
        ids = Settings({"bad_words_ids": word}, settings.origin).numbers("bad_words_ids")
        if len(ids) == 1:
            yield ids[0]


def told(decoding: DecodingConfig) -> dict[str, Any]:
    """The fields of generation_config.json of a decoding, as far as there are such."""
    fields: dict[str, Any] = {
        "num_beams": decoding.beam,
        "no_repeat_ngram_size": decoding.no_repeated_ngram,
        "repetition_penalty": decoding.repetition_penalty,
        "min_new_tokens": decoding.min_length,
    }
    if decoding.length_offset == 0:  # with another one, there is no such penalty there
        fields["length_penalty"] = decoding.length_penalty
    return fields | ({"suppress_tokens": list(decoding.suppressed)} if decoding.suppressed else {})
