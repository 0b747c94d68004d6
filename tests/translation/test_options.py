"""What a translation must contain, n-best lists, draws, ensembles, scores and alignments, over a model."""

import functools
import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest
from small import MODEL, parameters

from transformer_jax.config import DecodingConfig
from transformer_jax.data.tokenizer import EOS_ID, PAD_ID
from transformer_jax.errors import InputError
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer
from transformer_jax.translation import Line, Translator

SENTENCES = ["abc", "dead bee", "a", "cab e d", "bad cab bead ace add"]


@functools.partial(jax.jit, static_argnames="return_attention")
def forward(params, source, target, return_attention=False):
    """The whole model on whole sequences: no cache anywhere."""
    return Transformer(MODEL).apply({"params": params}, source, target, return_attention=return_attention)


def log_probs_of(source, target, params=None):
    """Of every token of a translation, padding left out of the distribution."""
    inputs = np.array([[PAD_ID, *target[:-1]]], np.int32)
    logits, _ = forward(params or parameters(), np.array([source], np.int32), inputs)
    log_probs = jax.nn.log_softmax(logits[0].at[:, PAD_ID].set(-np.inf))
    return [float(log_probs[place, token]) for place, token in enumerate(target)]


@pytest.fixture(scope="module")
def three_best(translator):
    return translator(batch_size=4, beam=3, nbest=3)


@pytest.fixture(scope="module")
def lists(three_best):
    return list(three_best.stream(map(Line, SENTENCES)))


def test_lists_are_sorted_and_their_numbers_are_those_of_the_model(lists):
    for translation in lists:
        scores = [hypothesis.score for hypothesis in translation.hypotheses]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        for hypothesis in translation.hypotheses[:2]:
            (part,) = hypothesis.parts
            source, target = part.source, part.target
            assert hypothesis.log_prob == pytest.approx(sum(log_probs_of(source, target)), abs=1e-4)
            penalty = ((5 + len(target)) / 6) ** 0.6
            assert hypothesis.score == pytest.approx(hypothesis.log_prob / penalty, abs=1e-5)


def test_scores_of_given_pairs(three_best, tokenizers):
    pairs = [("abc", "CBA"), ("dead bee", "EEB DAED"), ("", "A"), ("a", "")]
    for (source, target), scored in zip(pairs, three_best.score(pairs), strict=True):
        source_ids = [*tokenizers.source.encode([source])[0], EOS_ID]
        target_ids = [*tokenizers.target.encode([target])[0], EOS_ID]
        expected = log_probs_of(source_ids, target_ids)
        assert scored.pieces == tokenizers.target.pieces(target_ids)
        np.testing.assert_allclose(scored.log_probs, expected, atol=1e-4)
        assert scored.log_prob == pytest.approx(sum(expected), abs=1e-4)
    assert three_best.score([]) == []


def test_a_draw_depends_on_its_line_alone(translator):
    drawing = translator(batch_size=4, sampling=True, nbest=2, seed=3, temperature=4.0)
    lines = [*map(Line, SENTENCES), Line("abc")]
    texts = [[h.text for h in translation.hypotheses] for translation in drawing.stream(lines)]
    for number, line in enumerate(lines):
        (alone,) = drawing.stream([line], first=number)
        assert [h.text for h in alone.hypotheses] == texts[number]
    assert texts[0] != texts[-1]  # the same sentence on another line
    assert len({text for pair in texts for text in pair}) > 6
    other = translator(batch_size=4, sampling=True, nbest=2, seed=4, temperature=4.0)
    assert [[h.text for h in translation.hypotheses] for translation in other.stream(lines)] != texts


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"beam": 4}, {"sampling": True}])
def test_constraints_hold_in_the_text(translator, fields):
    usual = translator(batch_size=4, **fields)
    plain = usual.translate(SENTENCES)
    first, later = (next(text.split()[place] for text in plain if len(text.split()) > place) for place in (0, 1))
    alike = [next(n for n, text in enumerate(plain) if word in text.split()) for word in (first, later)]
    lines = [
        Line("dead bee", required=["CAB", "A D"]),
        Line(SENTENCES[alike[0]], forbidden=[first]),
        Line("cab e d", prefix="A", required=["B C"], forbidden=[later]),
    ]
    texts = [translation.text for translation in usual.stream(lines)]
    assert "CAB" in texts[0]
    assert "A D" in texts[0]
    if not fields.get("sampling"):  # the line of a draw is another
        assert first in plain[alike[0]].split()
    assert first not in texts[1].split()
    assert texts[2].startswith("A")
    assert "B C" in texts[2]
    assert later not in texts[2].split()


@pytest.mark.slow
def test_settings_hold_in_the_ids(translator):
    (long,) = translator(batch_size=4, min_length=50).stream([Line("abc")])
    assert len(long.hypotheses[0].parts[0].target) >= 50
    strict = translator(batch_size=4, min_length=6, no_repeated_ngram=2)
    for translation in strict.stream(map(Line, SENTENCES)):
        target = translation.hypotheses[0].parts[0].target
        assert len([token for token in target if token != EOS_ID]) >= 6
        pairs = list(itertools.pairwise(target))
        assert len(set(pairs)) == len(pairs)
    repeating = translator(batch_size=4, repetition_penalty=3.0)
    assert repeating.translate(SENTENCES) != translator(batch_size=4).translate(SENTENCES)


def test_ensembles(tokenizers, translator):
    first, second = parameters(), parameters(seed=3)
    decoding = DecodingConfig(beam=2, extra_length=7, batch_size=4)

    def ensemble(weights=None, mean="probabilities"):
        return Translator([MODEL, MODEL], [first, second], tokenizers, decoding, weights=weights, mean=mean)

    single = translator(batch_size=4)
    alone, other = (single.with_parameters(one).translate(SENTENCES) for one in (first, second))
    assert ensemble([0.0, 1.0]).translate(SENTENCES) == other
    both = ensemble()
    assert both.translate(SENTENCES) not in (alone, other)
    (scored,) = both.score([("abc", "CBA")])
    ids = [*tokenizers.source.encode(["abc"])[0], EOS_ID], [*tokenizers.target.encode(["CBA"])[0], EOS_ID]
    mean = np.logaddexp(log_probs_of(*ids, first), log_probs_of(*ids, second)) - np.log(2)
    np.testing.assert_allclose(scored.log_probs, mean, atol=1e-4)
    (scored,) = ensemble(mean="log_probabilities").score([("abc", "CBA")])
    halves = (np.array(log_probs_of(*ids, first)) + log_probs_of(*ids, second)) / 2  # to be normalised, which adds
    assert (np.array(scored.log_probs) >= halves - 1e-4).all()
    assert not np.allclose(scored.log_probs, mean, atol=1e-3)
    with pytest.raises(InputError, match="an ensemble of 2 needs as many"):
        ensemble([1.0])


DRAFT = replace(MODEL, decoder_layers=1, width=6, num_heads=3, ffn_width=8)


def test_a_draft_model_changes_nothing(translator, tokenizers):
    """Through slots that are filled again, with a line in parts, and under constraints."""
    greedy = translator(batch_size=4, beam=1, longest=12)
    draft = (DRAFT, init_parameters(DRAFT, jax.random.key(3)))
    drafted = Translator(MODEL, parameters(), tokenizers, replace(greedy.decoding, guesses=2), draft=draft)
    lines = [Line(text) for text in [*SENTENCES, "bad cab bead ace abc add bee", ""]]
    lines += [Line("abc", prefix="B", forbidden=["A"])]
    for expected, found in zip(greedy.stream(lines), drafted.stream(lines), strict=True):
        assert found.text == expected.text
        np.testing.assert_allclose(found.hypotheses[0].score, expected.hypotheses[0].score, atol=1e-4)
    assert drafted.score([("abc", "CBA")]) == greedy.score([("abc", "CBA")])
    with pytest.raises(InputError, match="a draft model helps a beam of one alone"):
        Translator(MODEL, parameters(), tokenizers, DecodingConfig(beam=2), draft=draft)
    with pytest.raises(InputError, match="cannot see to required phrases"):
        list(drafted.stream([Line("abc", required=["A"])]))


@pytest.mark.slow
def test_a_draft_model_reads_beyond_the_table_of_positions(tokenizers):
    learned, params = replace(MODEL, positions="learned", max_positions=13), parameters()
    params = {**params, **init_parameters(learned, jax.random.key(1))}
    text, decoding = "bad cab bead ace d", DecodingConfig(beam=1, guesses=3)
    alone = Translator(learned, params, tokenizers, decoding)
    drafted = Translator(learned, params, tokenizers, decoding, draft=(learned, params))
    assert 10 < len(tokenizers.source.encode([text])[0]) + 1 <= 13
    (expected,), (found,) = alone.stream([Line(text)]), drafted.stream([Line(text)])
    assert len(found.hypotheses[0].parts) == 1
    assert found.hypotheses[0].parts[0].target == expected.hypotheses[0].parts[0].target
    shorter = (replace(learned, max_positions=12), params)
    with pytest.raises(InputError, match="the draft model has max_positions=12, and the model it helps 13"):
        Translator(learned, params, tokenizers, decoding, draft=shorter)


def test_a_vocabulary(translator, tokenizers):
    words = ["A", "CAB", "."] if tokenizers.target.knows(tokenizers.target.encode(["."])[0]) else ["A", "CAB"]
    decoding = translator(batch_size=4).decoding
    few = Translator(MODEL, parameters(), tokenizers, decoding, vocabulary=words)
    allowed = {EOS_ID, *(token for word in words for token in tokenizers.target.encode([word])[0])}
    for translation in few.stream(map(Line, SENTENCES)):
        assert translation.hypotheses
        assert {token for part in translation.hypotheses[0].parts for token in part.target} <= allowed
    with pytest.raises(InputError, match="'xyz' cannot be written with the pieces of the vocabulary"):
        Translator(MODEL, parameters(), tokenizers, decoding, vocabulary=["A", "xyz"])
    with pytest.raises(InputError, match="the vocabulary has no words"):
        Translator(MODEL, parameters(), tokenizers, decoding, vocabulary=[" "])


def test_alignments_are_where_attention_is_greatest(three_best, lists):
    translation = lists[3]
    (part,) = translation.hypotheses[0].parts
    source, target = part.source, part.target
    (pairs,) = three_best.align(translation.hypotheses[:1], layer=1, head=4)
    inputs = np.array([[PAD_ID, *target[:-1]]], np.int32)
    _, attention = forward(parameters(), np.array([source], np.int32), inputs, return_attention=True)
    weights = np.asarray(attention.cross[1, 0, 4])
    source_pieces = three_best.tokenizers.source.pieces(source[:-1])
    target_pieces = three_best.tokenizers.target.pieces(target[:-1])
    words = SENTENCES[3].split()
    assert [word for _, word in pairs] == list(range(len(translation.text.split())))
    for chosen, word in pairs:
        rows = [place for place in range(len(target_pieces)) if word_of(target_pieces, place) == word]
        by_word = [
            sum(weights[row, s] for row in rows for s in range(len(source_pieces)) if word_of(source_pieces, s) == w)
            for w in range(len(words))
        ]
        assert chosen == int(np.argmax(by_word))


def word_of(pieces, place):
    return sum(piece.startswith("\u2581") for piece in pieces[: place + 1]) - 1


def test_alignments_of_a_line_in_parts_count_on(translator):
    small = translator(batch_size=4, beam=1, longest=12)
    text = "bad cab bead ace abc add bee"
    (translation,) = small.stream([Line(text)])
    assert len(translation.hypotheses[0].parts) > 1
    (pairs,) = small.align(translation.hypotheses)
    sources, targets = zip(*pairs, strict=True)
    assert list(targets) == list(range(len(translation.text.split())))
    assert max(sources) < len(text.split())
    assert small.align([]) == []


LEARNED = replace(MODEL, positions="learned", max_positions=13)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (Line("abc", prefix="xyz"), r"line 8: 'xyz' cannot be written with the pieces of the vocabulary"),
        (Line("abc", required=["A", "ü"]), r"line 8: 'ü' cannot be written"),
        (Line("abc " * 9, required=["A"]), r"line 8 is translated in 3 parts.*'A' should stand; split the line"),
        (
            Line("abc", required=["ABCDE EDCBA A B C D E A B"]),
            r"line 8: its prefix and phrases take \d+ tokens.*max_positions=13",
        ),
    ],
)
def test_what_cannot_be_is_named(tokenizers, line, message):
    learned = Translator(LEARNED, init_parameters(LEARNED, jax.random.key(1)), tokenizers, DecodingConfig(beam=2))
    with pytest.raises(InputError, match=message):
        list(learned.stream([line], first=7))


def test_what_nothing_satisfies_is_said(translator):
    usual = translator(batch_size=4)
    everything = ["A", "B", "C", "D", "E"]
    (translation,) = usual.stream([Line("abc", prefix="A", forbidden=everything)])
    assert translation.hypotheses == ()
    assert translation.text == ""
    assert translation.warnings == ("no translation satisfies its constraints, or the model's numbers are not finite",)


@pytest.mark.slow
def test_a_forbidden_word_does_not_begin_the_output_without_its_space(translator, tokenizers):
    """Every word that a translation begins with, one after the other."""
    usual, forbidden = translator(batch_size=4), []
    for _ in range(3):
        (translation,) = usual.stream([Line("ebb", forbidden=forbidden)])
        words = translation.text.split()
        assert not set(words) & set(forbidden)
        forbidden.append(words[0])


def test_a_part_without_a_translation(translator):
    """The prefix of the first part is forbidden: nothing can stand there, the other part is translated."""
    small = translator(batch_size=4, beam=1, longest=12)
    (translation,) = small.stream([Line("bad cab bead ace abc add bee", prefix="A", forbidden=["A"])])
    (hypothesis,) = translation.hypotheses
    assert hypothesis.score == hypothesis.log_prob == -np.inf
    assert [bool(part.target) for part in hypothesis.parts] == [False, True]
    ((nothing, scored),) = small.score_hypotheses([hypothesis])
    assert (nothing.pieces, nothing.log_prob) == ([], 0)
    assert len(scored.pieces) == len(hypothesis.parts[1].target)
    assert any("no translation satisfies" in warning for warning in translation.warnings)
    (pairs,) = small.align([hypothesis])
    assert [word for _, word in pairs] == list(range(len(translation.text.split())))
    assert min(source for source, _ in pairs) >= 1


def test_a_blank_line_with_a_prefix_is_said(translator):
    (translation,) = translator(batch_size=4).stream([Line(" ", prefix="A")])
    assert translation.text == ""
    assert translation.warnings == ("blank, and stays so: what its translation must contain is not there",)
    (blank,) = translator(batch_size=4).stream([Line("abc", prefix=" ", required=["\t"])])
    assert blank.text == translator(batch_size=4).translate(["abc"])[0]


def test_parts_of_a_line_draw_differently(translator):
    drawing = translator(batch_size=4, sampling=True, temperature=4.0, longest=4)
    (translation,) = drawing.stream([Line("a b a b a b a b")])
    targets = [tuple(part.target) for part in translation.hypotheses[0].parts]
    assert len(targets) > 2
    assert len(set(targets)) > 1


def test_scores_and_soft_alignments_of_what_was_decoded(three_best, lists):
    hypotheses = [hypothesis for translation in lists[:2] for hypothesis in translation.hypotheses]
    weights = three_best.soft_align(hypotheses, layer=0, head=2)
    for hypothesis, scored, own in zip(hypotheses, three_best.score_hypotheses(hypotheses), weights, strict=True):
        assert sum(part.log_prob for part in scored) == pytest.approx(hypothesis.log_prob, abs=1e-4)
        for part, score, rows in zip(hypothesis.parts, scored, own, strict=True):
            assert score.pieces == three_best.tokenizers.target.pieces(part.target)
            assert rows.shape == (len(part.target), len(part.source))
            np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-5)


def test_mistakes_of_callers(tokenizers, translator):
    config, two = DecodingConfig(beam=2), [parameters(), parameters(seed=3)]
    for models, params in (([], []), ([MODEL, MODEL], two[:1])):
        with pytest.raises(InputError, match="as many, and at least one"):
            Translator(models, params, tokenizers, config)
    with pytest.raises(InputError, match="encoder_layers=0 and decoder_layers=2: a translator needs both"):
        Translator(replace(MODEL, encoder_layers=0), parameters(), tokenizers, config)
    with pytest.raises(InputError, match="an ensemble has the parameters of several models"):
        Translator([MODEL, MODEL], two, tokenizers, config).with_parameters(two[0])
    for nothing in ({"path": []}, {"path": "run", "step": ()}):
        with pytest.raises(InputError, match="no run or no step is named"):
            Translator.from_run(**nothing)
    with pytest.raises(InputError, match="line 2: no text, but half of a surrogate pair"):
        translator(batch_size=4).translate(["abc", "\ud800"])
    for flags, message in (({"layer": 2}, "layer=2: the decoder has 2"), ({"head": 5}, "head=5: a layer has 5")):
        with pytest.raises(InputError, match=message):
            translator(batch_size=4).soft_align([], **flags)


def test_the_warnings_are_those_of_the_hypotheses_that_stay(translator):
    (translation,) = translator(batch_size=4, beam=3, nbest=3, min_length=50).stream([Line("abc")])
    assert all(hypothesis.warnings for hypothesis in translation.hypotheses)
    assert len(translation.warnings) == len(set(translation.warnings)) >= 1
    assert replace(translation, hypotheses=()).warnings == ()
