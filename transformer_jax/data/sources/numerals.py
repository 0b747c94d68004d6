"""Numbers in English and in German words: pairs made on the spot, with held-out numbers."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

from num2words import num2words

from transformer_jax.config import Numerals
from transformer_jax.data.sources.source import Example, Split
from transformer_jax.errors import InputError

PARITIES = ("even", "odd")

_LARGEST_SHARE = 8  # at most one in so many numbers of a digit count is held out for a split

# Numbers that are a word of their own, which no other number may teach: they stay in training. All one-digit numbers
# are among them, so that none of these is held out: an unseen one could not be derived by any rule.
_WORDS = {*range(21), *range(20, 100, 10), *(10**power for power in range(9))}


@dataclasses.dataclass(frozen=True)
class NumeralsSource:
    """The numbers of each split in ascending order, grouped by their digit count."""

    data: Numerals

    def pairs(self, split: Split) -> Iterator[Example]:
        """The numbers of a split in words of both languages, or what the form of the data says.

        Raises:
            InputError: on more held-out numbers than there are beside those that stay in training.
        """
        numbers = self._numbers(split)
        english = spell(numbers, "en")
        match self.data.form:
            case "pairs":
                return zip(english, spell(numbers, "de"), strict=True)
            case "text":
                return ((None, text) for text in [*english, *spell(numbers, "de")])
            case "parity":
                return zip(english, (PARITIES[number % 2] for number in numbers), strict=True)

    def groups(self, split: Split) -> list[str]:
        """The digit count of each number of a split."""
        numbers = self._numbers(split) * (2 if self.data.form == "text" else 1)
        digits = [len(str(number)) for number in numbers]
        return [f"{count} digit{'s' if count > 1 else ''}" for count in digits]

    def _numbers(self, split: Split) -> list[int]:
        return _splits(self.data.limit, self.data.test_numbers, self.data.validation_numbers)[split]


def spell(numbers: Sequence[int], language: Literal["en", "de"]) -> list[str]:
    """The words of numbers below a thousand million, as num2words has them.

    Composed of the words of the thousands and of the rest, which are remembered: num2words is slow.
    """
    texts = []
    for number in numbers:
        rest = number % 1000
        thousands = number - rest
        if rest == 0 or thousands == 0:
            texts.append(_words(number, language))
            continue
        if language == "de":
            joint = "" if thousands % 1_000_000 else " "  # Million is a noun and stands alone
        elif rest >= 100:
            joint = ", "
        else:
            joint = " and "
        texts.append(_words(thousands, language) + joint + _words(rest, language))
    return texts


@functools.cache
def _words(number: int, language: str) -> str:
    return str(num2words(number, lang=language))


@functools.cache  # of which a run reads one after the other
def _splits(limit: int, test: int, validation: int) -> dict[str, list[int]]:
    """The numbers of each split: drawn by their hash, so that they depend on no random generator.

    Both splits hold out about as many numbers of each digit count, as far as an eighth of them goes; the digit
    count of most numbers makes up for the others.
    """
    strata: dict[int, list[int]] = {}
    for number in sorted(set(range(limit)) - _WORDS):
        strata.setdefault(len(str(number)), []).append(number)
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


def _shares(sizes: dict[int, int], count: int) -> dict[int, int]:
    """How many of `count` numbers each digit count gives."""
    shares: dict[int, int] = {}
    for place, digits in enumerate(sorted(sizes, key=lambda digits: sizes[digits])):
        strata_left = len(sizes) - place
        largest = sizes[digits] // _LARGEST_SHARE if strata_left > 1 else sizes[digits]
        shares[digits] = min(largest, (count - sum(shares.values())) // strata_left)
    return shares
