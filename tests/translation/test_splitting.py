"""Long lines into parts: nothing lost, nothing too long, cut at the best places there are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_jax.translation.splitting import split


def by_letter(texts):
    return [len(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("abc", ["abc"]),
        ("Go on. Go back!", ["Go on. ", "Go back!"]),
        ("A b. C d! E f?", ["A b. C d! ", "E f?"]),  # as many sentences as fit
        ('"Go on." Go.', ['"Go on." ', "Go."]),
        ("on we go, on we go", ["on we go, ", "on we go"]),  # no sentence ends: clauses
        ("on we go on we go", ["on we go ", "on we go"]),  # no clause: words
        ("abcdefghijklmno", ["abcdefg", "hijklmno"]),  # no word: within it
        ("Go. abcdefghijklmno. Go.", ["Go. ", "abcdefgh", "ijklmno. ", "Go."]),
        ("今日は良い天気。明日は雨。", ["今日は良い天気。", "明日は雨。"]),
        ("e\u0301" * 7, ["e\u0301" * 4, "e\u0301" * 3]),  # a letter keeps its accent
        ("3.14159265358979", ["3.141592", "65358979"]),  # no space behind it: no sentence ends there
    ],
)
def test_places(text, parts):
    assert split(text, by_letter, 10) == parts


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab .,!?\n\t。、é\u0301😀\u200d", max_size=200), st.integers(2, 17))
def test_nothing_is_lost_and_nothing_too_long(text, longest):
    parts = split(text, by_letter, longest)
    assert "".join(parts) == text
    assert all(0 < len(part) <= longest for part in parts)


def test_a_megabyte():
    for text in ("x" * 10**6, "ab cd. " * 150_000):
        parts = split(text, by_letter, 63)
        assert "".join(parts) == text
        assert max(map(len, parts)) <= 63
