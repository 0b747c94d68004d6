"""A text that is forbidden stands in no output, however it is cut into pieces, and nothing else is kept out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.data.tokenizer import EOS_ID, OWN, PAD_ID, UNK_ID, Tokenizer
from transformer_jax.decoding import Forbidden, Outputs
from transformer_jax.translation.spelling import Spelling

SPACE = "\u2581"


class Pieces(Tokenizer):
    """A tokenizer of these pieces, of which one of a letter each writes a text."""

    special, digest = OWN, "of a test"

    def __init__(self, *pieces):
        self._pieces = ["<pad>", "</s>", "<unk>", *pieces]

    @property
    def vocab_size(self):
        return len(self._pieces)

    def pieces(self, ids):
        return [self._pieces[token] for token in ids]

    def decode(self, ids):
        return ["".join(self.surfaces(sentence)) for sentence in ids]

    def encode(self, texts):
        surfaces = [(SPACE + text.strip()).replace(" ", SPACE) if text.strip() else "" for text in texts]
        letters = dict(zip(self._pieces, range(self.vocab_size), strict=True))
        return [[letters.get(letter, UNK_ID) for letter in surface] for surface in surfaces]


TOKENIZER = Pieces(SPACE, "a", "b", ",", SPACE + "a", "ab", "aba", SPACE + "ab", ",a", "b,", "ba,b", SPACE + "b,a")


def stands(surface, pieces):
    """Whether the last piece ends the text, by its letters alone; a word goes on where a piece does not end."""
    text, before = "".join(pieces), len("".join(pieces[:-1]))
    for begin in range(len(text) - len(surface) + 1):
        end = begin + len(surface)
        starts_word = begin == 0 or not text[begin - 1].isalnum() or not surface[0].isalnum()
        ends_word = end == len(text) or not text[end].isalnum() or not surface[-1].isalnum()
        if text[begin:end] == surface and end > before and starts_word and ends_word:
            return True
    return False


def banned(spelling, tokenizer, texts, tokens):
    """The tokens that must not come behind these."""
    constraint = Forbidden.of([[spelling.edges(text) for text in texts]], spelling.starts)
    outputs = Outputs(
        jnp.asarray([[[*tokens, *[PAD_ID] * (12 - len(tokens))]]]), jnp.array([len(tokens)]), jnp.array([12]), EOS_ID
    )
    return set(np.flatnonzero(np.asarray(adjust(constraint, outputs, tokenizer.vocab_size)[0, 0]) == -np.inf))


@functools.partial(jax.jit, static_argnames="vocab_size")
def adjust(constraint, outputs, vocab_size):
    return constraint.adjust(jnp.zeros((1, 1, vocab_size)), outputs)


@pytest.mark.parametrize("texts", [["ab"], ["a b"], [","], ["a,b", "ba"], ["abab,a"], ["b,"]])
def test_what_would_end_a_text_is_kept_out_and_nothing_else(texts):
    random, spelling, seen = np.random.default_rng(7), Spelling(TOKENIZER), 0
    surfaces = [text.replace(" ", SPACE) for text in texts]
    for _ in range(99):
        tokens = random.integers(UNK_ID + 1, TOKENIZER.vocab_size, random.integers(0, 8)).tolist()
        before = TOKENIZER.pieces(tokens)
        expected = {
            token
            for token in range(UNK_ID + 1, TOKENIZER.vocab_size)
            if any(stands(surface, [*before, *TOKENIZER.pieces([token])]) for surface in surfaces)
        }
        assert banned(spelling, TOKENIZER, texts, tokens) == expected, before
        seen += len(expected)
    assert seen


def test_a_long_text_has_few_edges():
    letters = Pieces(SPACE, *"abcdefghijklmnopqrstuvwxyz", "ab", "cd", "abc", SPACE + "a")
    text = "abcd" * 16
    edges = Spelling(letters).edges(text)
    assert len(edges) < 3 * len(text)
    spelling, tokens = Spelling(letters), letters.encode([text])[0]
    constraint = Forbidden.of([[edges]], spelling.starts)
    ids = dict(zip(letters.pieces(range(letters.vocab_size)), range(letters.vocab_size), strict=True))
    for missing, expected in ((1, {ids["d"]}), (2, {ids["cd"]}), (3, set())):
        outputs = Outputs(
            jnp.asarray([[tokens[:-missing] + [PAD_ID] * missing]]),
            jnp.array([len(tokens) - missing]),
            jnp.array([99]),
            EOS_ID,
        )
        log_probs = constraint.adjust(jnp.zeros((1, 1, letters.vocab_size)), outputs)
        assert set(np.flatnonzero(log_probs[0, 0] == -np.inf)) == expected


def test_what_cannot_be_written_or_is_blank_has_no_way():
    spelling = Spelling(TOKENIZER)
    assert spelling.edges("xyz") == spelling.edges("") == spelling.edges(" ") == []


def test_scripts_without_spaces():
    letters = Pieces(SPACE, *"猫是这", "是猫")
    ids = dict(zip(letters.pieces(range(letters.vocab_size)), range(letters.vocab_size), strict=True))
    assert banned(Spelling(letters), letters, ["猫"], [ids["这"]]) == {ids["猫"], ids["是猫"]}
