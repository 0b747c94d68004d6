"""Long lines into parts: nothing lost, nothing too long, cut at the best places there are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_jax.config import ModelConfig, TokenizerConfig
from transformer_jax.data.tokenizer import train_tokenizers
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


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_pieces_that_are_more_tokens_alone(algorithm):
    """Of a real tokenizer, two texts joined may be more tokens than the two of them were."""
    random = np.random.default_rng(3)
    texts = [" ".join("".join(random.choice(list("abcde"), 3)) for _ in range(5)) for _ in range(60)]
    config = TokenizerConfig(algorithm=algorithm)
    tokenizer = train_tokenizers(config, ModelConfig(vocab_size=40), texts, texts).source

    def lengths(pieces):
        return [len(ids) for ids in tokenizer.encode(pieces)]

    for _ in range(100):
        for mark in ("", "\u3002"):
            text = mark.join("".join(random.choice(list("abcde"), random.integers(1, 9))) for _ in range(12))
            parts = split(text, lengths, 12)
            assert "".join(parts) == text
            assert max(lengths(parts)) <= 12


def test_what_is_no_token_goes_with_its_neighbour():
    def lengths(pieces):
        return [len(piece.replace(" ", "")) for piece in pieces]

    parts = split("    abcdefghij  ", lengths, 5)
    assert "".join(parts) == "    abcdefghij  "
    assert all(0 < length <= 5 for length in lengths(parts))
    assert split("   ", lengths, 5) == ["   "]


def test_a_megabyte():
    for text in ("x" * 10**6, "ab cd. " * 150_000):
        parts = split(text, by_letter, 63)
        assert "".join(parts) == text
        assert max(map(len, parts)) <= 63
