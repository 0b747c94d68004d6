"""Each constraint, alone and with others, against a search of all outputs that keeps those which satisfy it."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from chains import (
    EOS,
    PAD,
    A,
    B,
    assert_found,
    found,
    log_softmax,
    node_of,
    random_tables,
    score,
    search,
    select,
    step_of,
)

from transformer_jax.decoding import (
    BeamSearch,
    Forbidden,
    Greedy,
    MinLength,
    NoRepeatedNgram,
    Prefix,
    RepetitionPenalty,
    Required,
    Sampling,
    StepModel,
    Suppressed,
    Vocabulary,
    beam,
    chain,
    keys_of_lines,
    phrase_array,
)
from transformer_jax.errors import InputError

C = 4
VOCAB = 5
LIMITS = [4, 3, 4]
ALPHA = 0.6


def body(tokens):
    return tokens[:-1] if tokens[-1] == EOS else tokens


def contains(tokens, phrase):
    return any(tuple(tokens[i : i + len(phrase)]) == tuple(phrase) for i in range(len(tokens) - len(phrase) + 1))


@dataclass
class Case:
    """A constraint for sentences that are told apart, and what it means in plain Python."""

    name: str
    constraint: Any
    satisfied: Any = lambda sentence, tokens, limit: True  # of a whole output
    adjust: Any = lambda log_probs, before: log_probs  # of the next token


PREFIXES = [(A, B), (), (C,)]
WORDS = [{EOS, A, B}, {A, C}, {EOS, B, C}]
LEAST = [2, 0, 5]
FORBIDDEN = [[(A, B, A), (C, EOS)], [(A,), (B, C)], []]
REQUIRED = [[(A, A, B)], [(A, B)], [(C,), (A,)]]
TWO_REQUIRED = [[(B, A), (C,)], [(A, B), (B, A)], []]


def repeats(tokens, n):
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) < len(grams)


def penalised(log_probs, before):
    return np.array([1.7 * value if token in before else value for token, value in enumerate(log_probs)])


CASES = [
    Case(
        "prefix",
        Prefix(jnp.array([[A, B], [PAD, PAD], [C, PAD]]), jnp.array([2, 0, 1])),
        lambda sentence, tokens, limit: tokens[: len(PREFIXES[sentence])] == PREFIXES[sentence],
    ),
    Case(
        "vocabulary",
        Vocabulary(jnp.array([[token in words for token in range(VOCAB)] for words in WORDS])),
        lambda sentence, tokens, limit: set(tokens) <= WORDS[sentence],
    ),
    Case("suppressed", Suppressed((B,)), lambda sentence, tokens, limit: B not in tokens),
    Case(
        "least length",
        MinLength(jnp.array(LEAST)),
        lambda sentence, tokens, limit: len(body(tokens)) >= min(LEAST[sentence], limit),
    ),
    Case("no word twice", NoRepeatedNgram(1), lambda sentence, tokens, limit: not repeats(tokens, 1)),
    Case("no bigram twice", NoRepeatedNgram(2), lambda sentence, tokens, limit: not repeats(tokens, 2)),
    Case("no n-gram longer than the output twice", NoRepeatedNgram(7)),
    Case("penalty", RepetitionPenalty(1.7), adjust=penalised),
    Case(
        "forbidden",
        Forbidden.of([[chain(phrase) for phrase in own] for own in FORBIDDEN], np.zeros(VOCAB, bool)),
        lambda sentence, tokens, limit: not any(contains(tokens, phrase) for phrase in FORBIDDEN[sentence]),
    ),
    Case(
        "required",
        Required(jnp.array(phrase_array(REQUIRED, PAD)), PAD),
        lambda sentence, tokens, limit: all(contains(tokens[: limit - 1], phrase) for phrase in REQUIRED[sentence]),
    ),
]
BY_NAME = {case.name: case for case in CASES}
TOGETHER = [
    ("prefix", "least length", "no bigram twice", "forbidden"),
    ("required", "no word twice", "penalty"),
]


def exhaustive(table, sentence, limit, cases, alpha):
    """Every output that satisfies all, as (score, tokens), best first."""
    found = []
    for length in range(1, limit + 1):
        for tokens in itertools.product(range(1, VOCAB), repeat=length):
            if EOS in tokens[:-1] or (length < limit and tokens[-1] != EOS):
                continue
            if not all(case.satisfied(sentence, tokens, limit) for case in cases):
                continue
            total = 0.0
            for i in range(length):
                log_probs = log_softmax(table[node_of(tokens[:i], VOCAB)])
                for case in cases:
                    log_probs = case.adjust(log_probs, tokens[:i])
                total += log_probs[tokens[i]]
            found.append((score(total, length, alpha), tokens))
    return sorted(found, reverse=True)


@pytest.fixture(scope="module")
def tables():
    return random_tables(29, len(LIMITS), VOCAB, max(LIMITS))


def run(strategy, tables, names, limits=LIMITS, **flags):
    constraints = tuple(BY_NAME[name].constraint for name in names)
    return search(strategy, tables, jnp.arange(3), jnp.array(limits), max(LIMITS), constraints=constraints, **flags)


@pytest.mark.parametrize("names", [*((case.name,) for case in CASES), *TOGETHER])
def test_a_wide_beam_lists_exactly_what_satisfies_it(tables, names):
    hypotheses = run(BeamSearch(27, ALPHA, n_best=27), tables, names)  # as many as there can be open before the last
    cases = [BY_NAME[name] for name in names]
    for sentence, limit in enumerate(LIMITS):
        assert_found(hypotheses, sentence, exhaustive(np.asarray(tables[sentence]), sentence, limit, cases, ALPHA))


def found_by(hypotheses, sentence):
    rows = zip(hypotheses.tokens[sentence].tolist(), hypotheses.lengths[sentence].tolist(), strict=True)
    return [tuple(tokens[:length]) for tokens, length in rows if length]


def greedy_reference(table, sentence, limit, cases):
    """The best next token that an output which satisfies all can still go on with."""
    outputs = exhaustive(table, sentence, limit, cases, 0.0)
    tokens = ()
    while len(tokens) < limit and EOS not in tokens:
        possible = {output[len(tokens)] for _, output in outputs if output[: len(tokens)] == tokens}
        if not possible:
            return None
        log_probs = log_softmax(table[node_of(tokens, VOCAB)])
        for case in cases:
            log_probs = case.adjust(log_probs, tokens)
        tokens = (*tokens, max(possible, key=lambda token: log_probs[token]))
    return tokens


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        *((Greedy(), (case.name,)) for case in CASES if case.name != "required"),
        (Sampling(top_k=1), TOGETHER[0]),
        (Sampling(top_k=1), ("vocabulary", "penalty")),
    ],
)
def test_one_row_takes_the_best_that_is_allowed(tables, strategy, names):
    cases = [BY_NAME[name] for name in names]
    keys = keys_of_lines(3, np.arange(3)) if isinstance(strategy, Sampling) else None
    hypotheses = run(strategy, tables, names, keys=keys)
    for sentence, limit in enumerate(LIMITS):
        expected = greedy_reference(np.asarray(tables[sentence]), sentence, limit, cases)
        assert found_by(hypotheses, sentence) == ([] if expected is None else [expected])


STRATEGIES = [
    Greedy(),
    BeamSearch(5, n_best=3),
    BeamSearch(4, n_best=4, groups=2),
    BeamSearch(4, n_best=2, stopping="patience"),
    Sampling(samples=7),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "names",
    [
        ("prefix", "least length", "no bigram twice"),
        pytest.param(("vocabulary", "forbidden", "penalty"), marks=pytest.mark.slow),
    ],
)
def test_no_output_of_any_strategy_breaks_them(tables, strategy, names):
    keys = keys_of_lines(5, np.arange(3)) if isinstance(strategy, Sampling) else None
    hypotheses = run(strategy, tables, names, keys=keys)
    for sentence, limit in enumerate(LIMITS):
        outputs = found_by(hypotheses, sentence)
        assert outputs
        assert all(BY_NAME[name].satisfied(sentence, tokens, limit) for tokens in outputs for name in names)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("limit", [4, 6])
def test_all_phrases_stand_in_every_output(strategy, limit):
    """From the least limit that leaves room for them, in tables that would rather end at once."""
    limits = np.array([4, 5, 0]) + limit - 4
    tables = random_tables(31, 3, VOCAB, 7).at[:, :, EOS].add(3.0)
    required = Required(jnp.array(phrase_array(TWO_REQUIRED, PAD)), PAD)
    keys = keys_of_lines(5, np.arange(3)) if isinstance(strategy, Sampling) else None
    hypotheses = search(strategy, tables, jnp.arange(3), jnp.array(limits), 7, constraints=(required,), keys=keys)
    for sentence, phrases in enumerate(TWO_REQUIRED):
        outputs = found_by(hypotheses, sentence)
        assert outputs or not phrases
        for tokens in outputs:
            assert all(contains(tokens, phrase) for phrase in phrases)
            assert tokens[-1] == EOS or len(tokens) == limits[sentence]


#   B (3) is the least of five words everywhere, too little for a beam of two to look at it; behind it comes the end.
RARE = [
    [0, 0, 0.3, 0.1, 0.25, 0.2, 0.15],
    [0, 1, 0, 0, 0, 0, 0],
    [0, 0.5, 0.15, 0.05, 0.125, 0.1, 0.075],
    [0, 0.9, 0.1, 0, 0, 0, 0],
    *[[0, 0.5, 0.15, 0.05, 0.125, 0.1, 0.075]] * 3,
]


def test_the_beam_is_divided_among_what_outputs_have_of_the_phrases(monkeypatch):
    """The best with a B is B EOS (.1 * .9); next A B EOS (.3 * .05 * .9). Else B comes when the limit forces it."""
    required = Required(jnp.array(phrase_array([[(B,)]], PAD)), PAD)
    model = StepModel(step_of(RARE), select, PAD, EOS)
    strategy = BeamSearch(2, length_penalty=0.0)
    flags = {"limits": jnp.array([7]), "max_length": 7, "constraints": (required,)}
    assert found(strategy.search(model, jnp.zeros(2), **flags)) == [([B, EOS], 0.09)]
    monkeypatch.setattr(beam, "_required", lambda constraints: None)
    ((late, _),) = found(strategy.search(model, jnp.zeros(2), **flags))
    assert late.index(B) == 5


def test_scores_rank_by_what_is_adjusted_and_log_probs_are_those_of_the_model(tables):
    hypotheses = run(BeamSearch(3, ALPHA, n_best=3), tables, ["penalty"])
    for sentence in range(3):
        for place, tokens in enumerate(found_by(hypotheses, sentence)):
            steps = [log_softmax(tables[sentence][node_of(tokens[:i], VOCAB)]) for i in range(len(tokens))]
            own = sum(step[token] for step, token in zip(steps, tokens, strict=True))
            adjusted = sum(penalised(step, tokens[:i])[tokens[i]] for i, step in enumerate(steps))
            assert float(hypotheses.log_probs[sentence, place]) == pytest.approx(own, abs=1e-5)
            assert float(hypotheses.scores[sentence, place]) == pytest.approx(
                score(adjusted, len(tokens), ALPHA), abs=1e-5
            )


def test_what_nothing_satisfies_gives_nothing(tables):
    nothing = Vocabulary(jnp.zeros((3, VOCAB), bool))
    for strategy in (BeamSearch(4, groups=2), Sampling()):
        keys = keys_of_lines(5, np.arange(3)) if isinstance(strategy, Sampling) else None
        limits = jnp.array(LIMITS)
        hypotheses = search(strategy, tables, jnp.arange(3), limits, 5, constraints=(nothing,), keys=keys)
        assert not hypotheses.lengths.any()
        assert not hypotheses.tokens.any()
        assert (hypotheses.scores == -math.inf).all()


def test_phrase_arrays_are_padded():
    assert phrase_array([[(A, B, A), (C,)], []], PAD).tolist() == [[[A, B, A], [C, PAD, PAD]], [[PAD] * 3, [PAD] * 3]]
    assert phrase_array([[], []], PAD).tolist() == [[[PAD]], [[PAD]]]
    assert phrase_array([[(C,)]], PAD, (2, 3)).tolist() == [[[C, PAD, PAD], [PAD] * 3]]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            lambda: Forbidden.of([[chain([A, B])]], np.zeros(VOCAB, bool), (1, 1, 2)),
            r"room=\(1, 1, 2\): .* are \(1, 2, 2\)",
        ),
        (lambda: NoRepeatedNgram(0), "n=0 must be at least 1"),
        (lambda: RepetitionPenalty(0.0), "penalty=0.0 must be above 0"),
        (lambda: RepetitionPenalty(math.nan), "penalty=nan must be above 0"),
    ],
)
def test_mistakes_are_named(mistake, message):
    with pytest.raises(InputError, match=message):
        mistake()
