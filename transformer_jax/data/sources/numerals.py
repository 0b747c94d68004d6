"""Numbers in English and in German words: pairs made on the spot, with held-out numbers."""

import functools
import hashlib
from typing import Literal

from num2words import num2words

from transformer_jax.config import Numerals
from transformer_jax.data.sources.pairs import Pairs
from transformer_jax.errors import InputError

_LARGEST_SHARE = 8  # at most one in so many numbers of a digit count is held out for a split


def load_numerals(data: Numerals, split: Literal["train", "validation", "test"]) -> Pairs:
    """The numbers of a split in ascending order, grouped by their digit count.

    Raises:
        InputError: on more held-out numbers than there are beside those that stay in training.
    """
    numbers = _splits(data.limit, data.test_numbers, data.validation_numbers)[split]
    return Pairs(
        [spell(number, "en") for number in numbers],
        [spell(number, "de") for number in numbers],
        [f"{digits} digit{'s' if digits > 1 else ''}" for digits in map(_digits, numbers)],
    )


def spell(number: int, language: Literal["en", "de"]) -> str:
    """The words of a number below a thousand million, as num2words has them.

    Composed of the words of its thousands and of the rest, which are remembered: num2words is slow.
    """
    rest = number % 1000
    thousands = number - rest
    if rest == 0 or thousands == 0:
        return _words(number, language)
    return _words(thousands, language) + _between(thousands, rest, language) + _words(rest, language)


def _between(thousands: int, rest: int, language: str) -> str:
    if language == "de":
        return " " if thousands % 1_000_000 == 0 else ""
    return ", " if rest >= 100 else " and "


@functools.cache
def _words(number: int, language: str) -> str:
    return str(num2words(number, lang=language))


def _digits(number: int) -> int:
    return len(str(number))


def _splits(limit: int, test: int, validation: int) -> dict[str, list[int]]:
    """The numbers of each split: drawn by their hash, so that they depend on no random generator.

    Both splits hold out about as many numbers of each digit count, as far as an eighth of them goes; the longest
    numbers make up for the short ones.
    """
    strata: dict[int, list[int]] = {}
    for number in range(limit):
        if not _needed_for_training(number):
            strata.setdefault(_digits(number), []).append(number)
    for stratum in strata.values():
        stratum.sort(key=lambda number: hashlib.sha256(f"numeral {number}".encode()).digest())
    held_out: dict[str, list[int]] = {}
    for split, count in (("test", test), ("validation", validation)):
        held_out[split] = []
        for digits, share in _shares({digits: len(stratum) for digits, stratum in strata.items()}, count).items():
            held_out[split] += strata[digits][:share]
            strata[digits] = strata[digits][share:]
        if len(held_out[split]) != count:
            raise InputError(
                f"data.{split}_numbers={count}: below data.limit={limit} only {len(held_out[split])} numbers can be "
                "held out, since the others teach the words; a higher limit has more"
            )
        held_out[split].sort()
    training = set(range(limit)).difference(*held_out.values())
    return {"train": sorted(training), **held_out}


def _needed_for_training(number: int) -> bool:
    """Whether a number is a word of its own, which no other number may teach: 0 to 20, the tens, the powers of ten.

    All one-digit numbers are among them: an unseen one can not be derived from rules, so that none is held out.
    """
    return number <= 20 or (number < 100 and number % 10 == 0) or str(number).strip("0") == "1"


def _shares(sizes: dict[int, int], count: int) -> dict[int, int]:
    """How many of `count` numbers each digit count gives."""
    shares: dict[int, int] = {}
    for place, digits in enumerate(sorted(sizes)):
        strata_left = len(sizes) - place
        largest = sizes[digits] // _LARGEST_SHARE if strata_left > 1 else sizes[digits]
        shares[digits] = min(largest, (count - sum(shares.values())) // strata_left)
    return shares
