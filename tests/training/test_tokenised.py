"""BLEU on tokens is that of counts by hand, and hyphens are split where the paper's were."""

import math
import sys

import pytest

from transformer_jax.errors import InputError
from transformer_jax.training.tokenised import TokenisedBleu, split_compounds


def scores(translations, references, language="en"):
    return TokenisedBleu(language).score(translations, references)


class TestBleu:
    @pytest.mark.parametrize(
        ("translations", "references", "matches", "length"),
        [
            (["a b c d e"], ["a b c d f"], [4 / 5, 3 / 4, 2 / 3, 1 / 2], 1.0),
            (["a b c d"], ["a b c d e"], [1, 1, 1, 1], math.exp(1 - 5 / 4)),
            (["a b c d e f"], ["a b c d"], [4 / 6, 3 / 5, 2 / 4, 1 / 3], 1.0),
            (["c c a b d e"], ["c a b d e"], [5 / 6, 4 / 5, 3 / 4, 2 / 3], 1.0),  # the reference has one c for two
            (["a b c d e", "x"], ["a b c d f", "x y"], [5 / 6, 3 / 4, 2 / 3, 1 / 2], math.exp(1 - 7 / 6)),
            (["a b c x d"], ["a b c y d"], [4 / 5, 2 / 4, 1 / 3, 0], 1.0),  # nothing is smoothed
            (["A b c d e"], ["a b c d e"], [4 / 5, 3 / 4, 2 / 3, 1 / 2], 1.0),
        ],
    )
    def test_counts_by_hand(self, translations, references, matches, length):
        found = scores(translations, references)
        assert found.bleu == pytest.approx(100 * length * math.prod(matches) ** (1 / 4))
        assert found.split_bleu == found.bleu

    def test_a_split_compound_matches_in_its_parts(self):
        found = scores(["so the rich-text file is here now"], ["so the rich-format file is here now"])
        whole = [6 / 7, 4 / 6, 2 / 5, 1 / 4]
        split = [8 / 9, 6 / 8, 4 / 7, 2 / 6]  # rich, a hyphen and text, of which two match
        assert found.bleu == pytest.approx(100 * math.prod(whole) ** (1 / 4))
        assert found.split_bleu == pytest.approx(100 * math.prod(split) ** (1 / 4))

    def test_signatures_tell_them_from_each_other_and_from_those_of_sacrebleu(self):
        found = scores(["a"], ["a"], "de")
        assert "|case:mixed|eff:no|tok:moses-de-sacremoses-" in found.bleu_signature
        assert found.split_bleu_signature.replace("-split|", "|") == found.bleu_signature != found.split_bleu_signature
        assert found.bleu_signature in str(found)
        assert found.split_bleu_signature in str(found)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("rich-text format", "rich ##AT##-##AT## text format"),
        ("Donau-Dampf-Schiff", "Donau ##AT##-##AT## Dampf ##AT##-##AT## Schiff"),
        ("1-2-3", "1 ##AT##-##AT## 2-3"),  # the 2 has been used
        ("a - b -c d-", "a - b -c d-"),
    ],
)
def test_hyphens_that_are_split(text, split):
    assert split_compounds(text) == split


class TestTokens:
    @pytest.mark.parametrize(
        ("language", "text", "tokens"),
        [
            ("de", "Das, z.B. ein Haus-Boot.", "Das , z.B. ein Haus-Boot ."),
            ("en", "it's 5,300.7%", "it &apos;s 5,300.7 %"),
            ("fr", "l'eau", "l&apos; eau"),
        ],
    )
    def test_are_those_of_moses(self, language, text, tokens):
        assert TokenisedBleu(language).tokens(text) == tokens

    def test_quotation_marks_and_entities_are_one_however_they_are_written(self):
        tokens = TokenisedBleu("de").tokens
        for text in ("Er sagte: „F&E“", "Er sagte: “F&amp;E”", "Er sagte: &quot;F&E&quot;"):
            assert tokens(text) == "Er sagte : &quot; F &amp; E &quot;"


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(InputError, match=r"^--tokenised de: needs the library sacremoses, .*transformer-jax\[moses\]"):
        TokenisedBleu("de")
