"""Speculative decoding gives what greedy search gives, whatever the draft model guesses, in fewer steps."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import EOS, PAD, A, B, random_tables, search, select

from transformer_jax.decoding import (
    BeamSearch,
    Forbidden,
    Greedy,
    MinLength,
    NoRepeatedNgram,
    Prefix,
    RepetitionPenalty,
    Required,
    Sentences,
    SpeculativeGreedy,
    StepModel,
    chain,
)
from transformer_jax.errors import InputError

VOCAB, LIMIT, GUESSES = 5, 6, 3
LIMITS = [6, 1, 4, 0, 5]


def several_logits(tables, tokens, cache):
    """`next_logits` for any number of tokens; the cache keeps the node behind each, so that it can go back."""
    logits = []
    for place in range(tokens.shape[1]):
        node = (
            jnp.take_along_axis(cache["nodes"], cache["length"][:, None], axis=1)[:, 0] * VOCAB + 1 + tokens[:, place]
        )
        node = jnp.minimum(node, tables.shape[1] - 1)  # what is read beyond the limit is nowhere in the tree
        logits.append(tables[cache["sentence"], node])
        length = cache["length"] + 1
        nodes = cache["nodes"].at[jnp.arange(len(node)), length].set(node)
        cache = {**cache, "nodes": nodes, "length": length}
    return jnp.stack(logits, axis=1), cache


def model(tables):
    return StepModel(
        functools.partial(several_logits, tables), select, PAD, EOS, lambda cache, length: {**cache, "length": length}
    )


def cache(count):
    nodes = jnp.zeros((count, LIMIT + GUESSES + 2), jnp.int32)
    return {"nodes": nodes, "length": jnp.zeros(count, jnp.int32), "sentence": jnp.arange(count)}


@functools.partial(jax.jit, static_argnames="guesses")
def speculate(tables, draft_tables, limits, guesses=GUESSES, constraints=()):
    """The outputs, and the steps of the model that they took."""
    strategy, caches = SpeculativeGreedy(model(draft_tables), guesses), (cache(len(limits)), cache(len(limits)))
    state = strategy.start(model(tables), Sentences(caches, limits, constraints, None, LIMIT))
    state = strategy.advance_until(model(tables), state, 0)
    return strategy.results(state), state.rounds.max()


@pytest.fixture(scope="module")
def tables():
    return random_tables(47, len(LIMITS), VOCAB, LIMIT)


@pytest.mark.parametrize("guesses", [1, GUESSES])
@pytest.mark.parametrize("likeness", [0.0, 0.8, 1.0])
def test_the_output_is_that_of_greedy_search(tables, guesses, likeness):
    other = random_tables(53, len(LIMITS), VOCAB, LIMIT)
    draft = likeness * tables + (1 - likeness) * other
    limits = jnp.array(LIMITS)
    expected = search(Greedy(), tables, jnp.arange(len(LIMITS)), limits, LIMIT)
    hypotheses, steps = speculate(tables, draft, limits, guesses)
    np.testing.assert_array_equal(hypotheses.tokens, expected.tokens)
    np.testing.assert_array_equal(hypotheses.lengths, expected.lengths)
    np.testing.assert_allclose(hypotheses.log_probs, expected.log_probs, atol=1e-5)
    longest = int(expected.lengths.max())
    assert math.ceil(longest / (guesses + 1)) <= int(steps) <= longest
    if likeness == 1.0:
        assert int(steps) == math.ceil(longest / (guesses + 1))


def test_nan_gives_nothing(tables):
    broken = tables.at[0].set(jnp.nan)
    hypotheses, _ = speculate(broken, tables, jnp.array(LIMITS))
    untouched, _ = speculate(tables, tables, jnp.array(LIMITS))
    assert not hypotheses.lengths[0].any()
    assert not hypotheses.tokens[0].any()
    np.testing.assert_array_equal(hypotheses.tokens[1:], untouched.tokens[1:])


COUNT = len(LIMITS)
CONSTRAINTS = {
    "prefix": lambda: (Prefix(jnp.full((COUNT, 3), B), jnp.array([3, 1, 0, 2, 1])),),
    "minimum and n-gram": lambda: (MinLength(jnp.array([5, 0, 2, 3, 4])), NoRepeatedNgram(2)),
    "penalty and forbidden": lambda: (
        RepetitionPenalty(4.0),
        Forbidden.of([[chain([A]), chain([B, B])]] * COUNT, np.zeros(VOCAB, bool)),
    ),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_hold_as_in_greedy_search(tables, name):
    draft = 0.7 * tables + 0.3 * random_tables(53, COUNT, VOCAB, LIMIT)
    constraints, limits = CONSTRAINTS[name](), jnp.array(LIMITS)
    free = search(Greedy(), tables, jnp.arange(COUNT), limits, LIMIT)
    expected = search(Greedy(), tables, jnp.arange(COUNT), limits, LIMIT, constraints=constraints)
    assert (expected.tokens != free.tokens).any()
    hypotheses, _ = speculate(tables, draft, limits, constraints=constraints)
    np.testing.assert_array_equal(hypotheses.tokens, expected.tokens)
    np.testing.assert_allclose(hypotheses.log_probs, expected.log_probs, atol=1e-5)
    np.testing.assert_allclose(hypotheses.scores, expected.scores, atol=1e-5)


def test_the_score_is_that_of_a_beam_of_one(tables):
    alpha, limits, caches = 0.7, jnp.array(LIMITS), (cache(COUNT), cache(COUNT))
    expected = search(BeamSearch(1, alpha), tables, jnp.arange(COUNT), limits, LIMIT)
    strategy = SpeculativeGreedy(model(tables), GUESSES, alpha)
    found = strategy.search(model(tables), caches, limits, max_length=LIMIT)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_mistakes_are_named(tables):
    able = model(tables)
    unable = StepModel(able.step, select, PAD, EOS)
    limits = jnp.array(LIMITS)
    caches, required = (cache(5), cache(5)), Required(jnp.full((5, 1, 1), A), PAD)
    with pytest.raises(InputError, match="guesses=0 must be at least 1"):
        SpeculativeGreedy(able, 0)
    with pytest.raises(InputError, match=r"length_penalty=-1\.0 must not be negative"):
        SpeculativeGreedy(able, length_penalty=-1.0)
    with pytest.raises(InputError, match="models that can rewind"):
        SpeculativeGreedy(unable).search(able, caches, limits, max_length=3)
    other = StepModel(able.step, select, PAD, A, able.rewind)
    with pytest.raises(InputError, match="different padding or end token"):
        SpeculativeGreedy(other).search(able, caches, limits, max_length=3)
    with pytest.raises(InputError, match="cannot see to required phrases"):
        SpeculativeGreedy(able).search(able, caches, limits, max_length=3, constraints=(required,))
