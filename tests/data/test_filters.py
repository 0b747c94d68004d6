"""Each filter alone on pairs that can be judged in the head, their report, and the memory for duplicates."""

import json
import sys

import pytest

from transformer_jax.config import FilterConfig
from transformer_jax.data.filters import filtered, iterate_filtered
from transformer_jax.data.seen import Seen
from transformer_jax.data.sources import Pairs
from transformer_jax.errors import InputError

PAIRS = [("a b c", "x"), ("a", "x y"), ("same", "same"), ("a b c", "x"), ("a b c", "y y y y y y y"), ("q", "x y")]


def kept(pairs, **fields):
    """The numbers of the pairs that are kept."""
    sources, targets = zip(*pairs, strict=True)
    sources = None if sources[0] is None else sources
    left, report = filtered(
        Pairs(sources, targets, [str(number) for number in range(len(pairs))]), FilterConfig(**fields)
    )
    numbers = [int(group) for group in left.groups]
    assert list(left.examples()) == [pairs[number] for number in numbers]
    assert report.kept == len(left) == len(pairs) - sum(dropped.count for dropped in report.dropped.values())
    one_by_one, same = iterate_filtered(iter(pairs), FilterConfig(**fields))
    assert list(one_by_one) == list(left.examples())
    assert same == report
    return numbers


def plain(*texts):
    return [(None, text) for text in texts]


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"min_length": 2}, [4]),
        ({"min_length": 2, "unit": "characters"}, [2, 4]),
        ({"max_length": 2}, [1, 2, 5]),
        ({"max_length": 3}, [0, 1, 2, 3, 5]),
        ({"max_length": 5, "unit": "characters"}, [0, 1, 2, 3, 5]),
        ({"max_ratio": 2.0}, [1, 2, 5]),
        ({"max_ratio": 2.5}, [1, 2, 4, 5]),
        ({"max_ratio": 3.0, "unit": "characters"}, [1, 2, 4, 5]),
        ({"identical": True}, [0, 1, 3, 4, 5]),
        ({"duplicates": "pair"}, [0, 1, 2, 4, 5]),
        ({"duplicates": "source"}, [0, 1, 2, 5]),
        ({"duplicates": "target"}, [0, 1, 2, 4]),
        ({"duplicates": "either"}, [0, 1, 2]),
    ],
)
def test_lengths_ratios_sides_and_duplicates(fields, numbers):
    assert kept(PAIRS, **fields) == numbers


def test_an_empty_side_is_endlessly_shorter():
    assert kept([("", "a"), ("a", ""), ("", ""), ("a", "a")], max_ratio=1e9) == [2, 3]


def test_a_pair_that_is_dropped_is_none_that_came_before():
    """The second pair shares its source with the first, and its target with the third, which stays for that reason."""
    assert kept([("a", "x"), ("a", "y"), ("b", "y")], duplicates="either") == [0, 2]
    assert kept([("a", "a b c"), ("a", "x")], max_length=2, duplicates="source") == [1]


def test_pairs_are_told_apart_by_where_a_side_ends():
    assert kept([("ab", "c"), ("a", "bc"), ("ab", "c")], duplicates="pair") == [0, 1]
    assert kept([("a", "b"), ("b", "a")], duplicates="either") == [0, 1]


@pytest.mark.parametrize(
    ("scripts", "share", "numbers"),
    [
        (("Latin",), 0.5, [0, 3, 4]),
        (("Latin",), 0.6, [0, 4]),
        (("Cyrillic",), 0.5, [1, 3, 4]),
        (("Han",), 1.0, [4]),
        (("Han", "Hiragana", "Katakana"), 1.0, [2, 4]),
        (("latin", "cyrillic"), 1.0, [0, 1, 3, 4]),
    ],
)
def test_the_share_of_letters_of_a_script(scripts, share, numbers):
    texts = ["Größe 1", "размер 2", "漢字かなカナ", "ab яю", "12 + 3"]  # the last has no letters
    assert kept(plain(*texts), target_scripts=scripts, min_script_share=share) == numbers
    flipped = [(text, "x") for text in texts]
    assert kept(flipped, source_scripts=scripts, min_script_share=share) == numbers
    assert kept(flipped, target_scripts=("Latin",)) == [0, 1, 2, 3, 4]


def test_the_language():
    english = "The house stands at the end of the street, and nobody lives there."
    german = "Das Haus steht am Ende der Straße, und niemand wohnt dort."
    pairs = [(english, german), (german, english), (english, english), ("12", "13")]
    assert kept(pairs, source_language="en") == [0, 2, 3]
    assert kept(pairs, source_language="en", target_language="de") == [0, 3]
    assert kept(plain(english, german), target_language="de", source_language="fr") == [1]


def test_a_language_that_is_unknown_and_a_library_that_is_missing(monkeypatch):
    with pytest.raises(InputError, match=r"filters\.target_language='xx': py3langid knows .*de, .*en, "):
        kept(PAIRS, target_language="xx")
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(InputError, match=r"filters\.source_language='en': .*pip install 'transformer-jax\[langid\]'"):
        kept(PAIRS, source_language="en")


def test_plain_text_has_one_side():
    texts = plain("a", "a b", "a", "a b c")
    assert kept(texts, min_length=2, max_length=2) == [1]
    assert kept(texts, max_ratio=1.0, identical=True, source_scripts=("Han",), duplicates="source") == [0, 1, 2, 3]
    for mode in ("pair", "target", "either"):
        assert kept(texts, duplicates=mode) == [0, 1, 3]


def test_the_report_counts_in_order_and_shows_three_of_each():
    many = [(f"{number} a", "x") for number in range(5)]
    pairs = [*PAIRS, *many]
    sources, targets = zip(*pairs, strict=True)
    config = FilterConfig(max_length=2, max_ratio=1.5, identical=True, duplicates="pair", min_length=1)
    _, report = filtered(Pairs(sources, targets), config)
    long, ratio = "with a side above 2 words", "with a side over 1.5 times as long as the other"
    names = [
        "with a side below 1 words",
        long,
        ratio,
        "with the same text on both sides",
        "with a pair that came before",
    ]
    assert {name: dropped.count for name, dropped in report.dropped.items()} == dict(
        zip(names, [0, 3, 7, 1, 0], strict=True)
    )
    assert list(report.dropped) == names
    assert report.dropped[long].examples == (PAIRS[0], PAIRS[3], PAIRS[4])
    assert report.dropped[ratio].examples == (PAIRS[1], PAIRS[5], many[0])
    assert str(report).startswith("filters: 0 of 11 pairs kept; 0 with a side below 1 words; 3 with a side above")
    tree = json.loads(report.to_json())
    assert (tree["total"], tree["kept"]) == (11, 0)
    assert tree["dropped"][long] == {"count": 3, "examples": [list(PAIRS[0]), list(PAIRS[3]), list(PAIRS[4])]}


def test_the_memory_for_duplicates_forgets_nothing_as_it_grows():
    seen, count = Seen(), 4_001  # grows three times
    for number in range(count):
        assert (f"{number}",) not in seen
        seen.add((f"{number}",))
        seen.add((f"{number // 2}",))  # once more
    assert all((f"{number}",) in seen for number in range(count))
    assert not any((f"{number}",) in seen for number in range(count, 2 * count))


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"min_length": 0}, ["min_length=0", "above 0"]),
        ({"max_length": -1}, ["max_length=-1", "above 0"]),
        ({"min_length": 3, "max_length": 2}, ["min_length=3", "max_length=2"]),
        ({"max_ratio": 0.9}, ["max_ratio=0.9", "1 or above"]),
        ({"min_script_share": 0.0}, ["min_script_share=0.0", "(0, 1]"]),
        ({"source_scripts": ("Latin", "Klingon")}, ["source_scripts='Klingon'", "Cyrillic"]),
        ({"target_scripts": ("Latin}",)}, ["target_scripts='Latin}'"]),
        ({"duplicates": "both"}, ["duplicates", "'both'", "'either'"]),
    ],
)
def test_mistakes_in_the_config(fields, parts):
    with pytest.raises(InputError) as error:
        FilterConfig(**fields)
    for part in parts:
        assert part in str(error.value)
