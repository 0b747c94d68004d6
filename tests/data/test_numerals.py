import hashlib
import re

import pytest
from num2words import num2words

from transformer_jax.config import Numerals
from transformer_jax.data.sources import Pairs, load_pairs
from transformer_jax.data.sources.numerals import spell
from transformer_jax.errors import InputError


@pytest.fixture(scope="module")
def splits() -> dict[str, Pairs]:
    return {split: load_pairs(Numerals(), split) for split in ("train", "validation", "test")}


def normalised(text: str) -> str:
    """Numerals in any formatting are the same: hyphens, commas, "and", case and spaces do not count."""
    return re.sub(r"[^a-zäöüß]", "", re.sub(r"\b(and|und)\b", "", text.lower()))


def drawn(count: int, limit: int) -> list[int]:
    return [int.from_bytes(hashlib.sha256(f"{limit} {i}".encode()).digest()[:8]) % limit for i in range(count)]


@pytest.mark.parametrize("language", ["en", "de"])
def test_spelling_is_that_of_num2words(language: str):
    edges = [0, 1, 99, 100, 999, 1000, 1001, 1100, 21_000, 100_000, 101_001, 10**6, 10**6 + 1, 1_001_000, 10**9 - 1]
    numbers = [*edges, *drawn(311, 100_000), *drawn(311, 10**9)]
    assert spell(numbers, language) == [num2words(number, lang=language) for number in numbers]


def test_the_splits_hold_each_number_once(splits: dict[str, Pairs]):
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 98_500, "validation": 500, "test": 1_000}
    for side in ("sources", "targets"):
        assert len({text for pairs in splits.values() for text in getattr(pairs, side)}) == 100_000


def test_no_held_out_number_is_in_training_under_any_formatting(splits: dict[str, Pairs]):
    for side in ("sources", "targets"):
        train, validation, test = (
            {normalised(text) for text in getattr(splits[split], side)} for split in ("train", "validation", "test")
        )
        assert (len(train), len(validation), len(test)) == (98_500, 500, 1_000)
        assert not train & test
        assert not train & validation
        assert not validation & test


def test_every_word_of_the_held_out_numbers_is_in_training(splits: dict[str, Pairs]):
    words = {
        split: {word for text in pairs.sources for word in re.findall(r"\w+", text)} for split, pairs in splits.items()
    }
    assert words["test"] | words["validation"] <= words["train"]
    for number in (*range(21), *range(20, 100, 10), 100, 1_000, 10_000):
        assert num2words(number) in splits["train"].sources


def test_every_digit_count_above_one_is_held_out_about_evenly(splits: dict[str, Pairs]):
    counts = {name: splits["test"].groups.count(name) for name in dict.fromkeys(splits["test"].groups)}
    assert list(counts) == ["2 digits", "3 digits", "4 digits", "5 digits"]
    assert counts["2 digits"] == 9  # an eighth of the 72 that are no tens
    assert counts["3 digits"] == 112  # an eighth of 899
    assert counts["5 digits"] - counts["4 digits"] in (0, 1)
    assert splits["train"].groups.count("1 digit") == 10


def test_groups_are_digit_counts_in_ascending_order(splits: dict[str, Pairs]):
    numbers = {num2words(number): number for number in range(1000)}
    pairs = splits["validation"]
    small = [(numbers[text], group) for text, group in zip(pairs.sources, pairs.groups, strict=True) if text in numbers]
    assert small == sorted(small)
    assert all(group.split()[0] == str(len(str(number))) for number, group in small)
    assert len(small) == 105  # 7 of two digits, 98 of three


@pytest.mark.parametrize(("limit", "test", "validation"), [(503, 29, 19), (1_511, 101, 50), (10_007, 499, 501)])
def test_counts_are_exact_for_any_limit(limit: int, test: int, validation: int):
    data = Numerals(limit=limit, test_numbers=test, validation_numbers=validation)
    sizes = {split: len(load_pairs(data, split)) for split in ("train", "validation", "test")}
    assert sizes == {"train": limit - test - validation, "validation": validation, "test": test}


def test_more_than_can_be_held_out_is_refused():
    with pytest.raises(InputError, match=r"data\.test_numbers=1: below data\.limit=20 only 0 numbers can be held out"):
        load_pairs(Numerals(limit=20, test_numbers=1, validation_numbers=1), "test")
