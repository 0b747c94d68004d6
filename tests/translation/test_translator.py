"""The Translator gives back what plain decoding of each sentence alone gives, in order, whatever the batches."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from small import ALPHA, EXTRA, LONG, MODEL, MOST_BEAMS, parameters

from transformer_jax.config import DecodingConfig
from transformer_jax.data.tokenizer import EOS_ID, PAD_ID, Tokenizers
from transformer_jax.decoding import BeamSearch
from transformer_jax.errors import InputError
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer
from transformer_jax.translation import Translator
from transformer_jax.translation import translator as translator_module


@pytest.fixture(scope="module")
def sentences():
    return ["", "abc", "dead bee", " \t", "a", "cab e d", LONG, "bad cab bead ace add", "e", "", "abc", "b b b", "  "]


def source_ids(tokenizers, sentence):
    return [*tokenizers.source.encode([sentence])[0], EOS_ID]


@pytest.fixture(scope="module")
def three(translator):
    """A translator of three sentences at once."""
    return translator(batch_size=3)


@pytest.fixture(scope="module")
def one_by_one(translator, sentences):
    alone = translator(batch_size=1)
    return [alone.translate([sentence])[0] for sentence in sentences]


def test_the_sentences_of_these_tests_differ_as_they_should(tokenizers, one_by_one):
    assert len(source_ids(tokenizers, LONG)) > 128
    assert len(set(one_by_one)) > 5
    assert len({len(output) for output in one_by_one}) > 5


@pytest.mark.parametrize("batch_size", [1, 7, pytest.param(3, marks=pytest.mark.slow)])
def test_batches_change_nothing(translator, sentences, one_by_one, batch_size):
    together = translator(batch_size=batch_size)
    assert together.translate(sentences) == one_by_one
    assert together.translate(sentences[::-1]) == one_by_one[::-1]


def test_blank_gives_blank(sentences, one_by_one):
    blank = [output for sentence, output in zip(sentences, one_by_one, strict=True) if not sentence.strip()]
    assert blank == ["", "", "", ""]


def test_blank_never_reaches_the_model(translator, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("the model was run")

    monkeypatch.setattr(Transformer, "apply", fail)
    nothing_compiled = translator(batch_size=2)
    assert nothing_compiled.translate(["", "  ", "\t"]) == ["", "", ""]
    assert nothing_compiled.translate([]) == []
    with pytest.raises(AssertionError, match="the model was run"):
        nothing_compiled.translate(["", "a"])


@functools.partial(jax.jit, static_argnames="return_attention")
def forward(params, source, target, return_attention=False):
    """The whole model on whole sequences: no cache anywhere."""
    return Transformer(MODEL).apply({"params": params}, source, target, return_attention=return_attention)


def reference_search(tokenizers, sentence, width):
    """Beam search in plain Python, run to the limit: the ids of the best hypothesis, without the end token."""
    source, params = source_ids(tokenizers, sentence), parameters()
    limit = len(source) + EXTRA
    open_, finished = [(0.0, [])], []
    for length in range(1, limit + 1):
        # What lies behind the last token is not seen from it, and rows do not see each other: one shape serves all.
        targets = np.zeros((MOST_BEAMS, limit), np.int32)
        for row, (_, tokens) in enumerate(open_):
            targets[row, 1:length] = tokens
        logits, _ = forward(params, np.array([source] * MOST_BEAMS, np.int32), targets)
        log_probs = jax.nn.log_softmax(logits[:, length - 1])
        candidates = [
            (total + float(log_probs[row, token]), [*tokens, token])
            for row, (total, tokens) in enumerate(open_)
            for token in range(MODEL.vocab_size)
            if token != PAD_ID
        ]
        candidates = sorted(candidates, reverse=True)[: 1 if width == 1 else 2 * width]
        ended = [one for one in candidates if one[1][-1] == EOS_ID or length == limit]
        finished += [(total / ((5 + length) / 6) ** ALPHA, tokens) for total, tokens in ended]
        open_ = [one for one in candidates if one not in ended][:width]
    return [token for token in max(finished)[1] if token != EOS_ID]


@pytest.mark.parametrize("beam", [pytest.param(1, marks=pytest.mark.slow), MOST_BEAMS])
def test_the_output_is_that_of_plain_search_without_a_cache(tokenizers, translator, beam):
    chosen = ["abc ace", "bad abc", "cab abc", "abc bad"]
    assert len({len(source_ids(tokenizers, sentence)) for sentence in chosen}) == 1  # one shape, quickly compiled
    expected = tokenizers.target.decode(reference_search(tokenizers, sentence, beam) for sentence in chosen)
    assert len(set(expected)) == len(chosen)
    assert translator(batch_size=3, beam=beam).translate(chosen) == expected


def test_an_output_without_an_end_has_the_length_of_its_source_and_the_extra_length(tokenizers, three, caplog):
    letter = tokenizers.target.encode(["AB AB"])[0][-1]
    text = tokenizers.target.decode([[letter]])[0]
    endless = three.with_parameters(parameters(favoured=letter, by=1e4))
    for sentence in ("a", "abc", "bad cab bead ace add"):
        (output,) = endless.translate([sentence])
        pieces = len(source_ids(tokenizers, sentence)) + EXTRA
        assert output == tokenizers.target.decode([[letter] * pieces])[0]
        assert len(output) >= pieces * len(text)
    assert f"line 1: its translation does not end within {pieces} tokens, and is cut there" in caplog.messages


def test_an_output_that_ends_at_once_is_empty(three):
    assert three.with_parameters(parameters(favoured=EOS_ID, by=1e4)).translate(["abc", "e"]) == ["", ""]


def test_other_parameters_are_used_and_compile_nothing(translator, three, monkeypatch):
    sentences = ["abc", "dead bee"]
    before = three.translate(sentences)
    expected = translator(batch_size=1).with_parameters(parameters(seed=3)).translate(sentences)

    def fail(*args, **kwargs):
        raise AssertionError("traced again")

    monkeypatch.setattr(BeamSearch, "advance", fail)
    monkeypatch.setattr(translator_module, "decoding_parameters", fail)
    assert three.with_parameters(parameters(seed=3)).translate(sentences) == expected != before
    assert three.translate(sentences) == before


class TestAttend:
    SENTENCE = "cab e d"

    def test_source_and_target_are_what_the_model_read_and_wrote(self, tokenizers, three):
        attended = three.attend(self.SENTENCE)
        assert attended.source == tokenizers.source.pieces(source_ids(tokenizers, self.SENTENCE))
        assert attended.target[-1] == tokenizers.target.pieces([EOS_ID])[0]
        assert "".join(attended.target[:-1]).replace("\u2581", " ").strip() == three.translate([self.SENTENCE])[0]

    def test_every_query_spreads_a_weight_of_one(self, three):
        attended = three.attend(self.SENTENCE)
        pieces, outputs = len(attended.source), len(attended.target)
        assert attended.encoder.shape == (1, 5, pieces, pieces)
        assert attended.decoder.shape == (2, 5, outputs, outputs)
        assert attended.cross.shape == (2, 5, outputs, pieces)
        for weights in (attended.encoder, attended.decoder, attended.cross):
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
        assert not np.triu(attended.decoder, 1).any()

    def test_the_weights_are_those_of_the_whole_model(self, tokenizers, three):
        attended = three.attend(self.SENTENCE)
        ids = {piece: token for token, piece in enumerate(tokenizers.target.pieces(range(MODEL.vocab_size)))}
        target = [PAD_ID, *(ids[piece] for piece in attended.target[:-1])]
        source = source_ids(tokenizers, self.SENTENCE)
        _, expected = forward(
            parameters(), np.array([source], np.int32), np.array([target], np.int32), return_attention=True
        )
        for ours, theirs in (
            (attended.encoder, expected.encoder),
            (attended.decoder, expected.decoder),
            (attended.cross, expected.cross),
        ):
            np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-5)

    @pytest.mark.parametrize("blank", ["", " \t "])
    def test_blank_is_refused(self, three, blank):
        with pytest.raises(InputError, match="the sentence is blank"):
            three.attend(blank)


def test_tokenizers_of_other_sizes_are_refused(tokenizers):
    swapped = Tokenizers(source=tokenizers.target, target=tokenizers.source)
    with pytest.raises(InputError, match=r"\(29, 31\) pieces \(source, target\), but the model has \(31, 29\)"):
        Translator(MODEL, parameters(), swapped)


LEARNED = replace(MODEL, positions="learned", max_positions=23)  # no padded length, nor one and the extra length


@pytest.fixture(scope="module")
def learned(tokenizers):
    return Translator(LEARNED, init_parameters(LEARNED, jax.random.key(1)), tokenizers, DecodingConfig(beam=2))


def test_a_sentence_as_long_as_the_table_of_positions_is_translated(tokenizers, learned):
    longest = "b " * 22
    assert len(source_ids(tokenizers, longest)) == 23
    output, short = learned.translate([longest, "abc"])
    assert short == learned.translate(["abc"])[0]
    assert len(tokenizers.target.encode([output])[0]) <= 23


def test_a_sentence_longer_than_the_table_of_positions_is_translated_in_parts(learned, caplog):
    words = ["b"] * 23 + ["cab"]
    whole = learned.translate(["abc", " ".join(words)])[1]
    assert "line 2: longer than the 23 tokens read at once: translated in 2 parts" in caplog.messages
    assert whole.split() == " ".join(learned.translate(["b " * 22, "b cab"])).split()
