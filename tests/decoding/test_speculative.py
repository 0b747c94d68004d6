"""Speculative decoding gives what greedy search gives, whatever the draft model guesses, in fewer steps."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import EOS, PAD, A, random_tables, search, select

from transformer_jax.decoding import Greedy, SpeculativeGreedy, StepModel
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
def speculate(tables, draft_tables, limits, guesses=GUESSES):
    return SpeculativeGreedy(guesses).search(
        model(tables), model(draft_tables), cache(len(limits)), cache(len(limits)), limits, max_length=LIMIT
    )


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


def test_mistakes_are_named(tables):
    able = model(tables)
    unable = StepModel(able.step, select, PAD, EOS)
    limits = jnp.array(LIMITS)
    with pytest.raises(InputError, match="guesses=0 must be at least 1"):
        SpeculativeGreedy(0)
    with pytest.raises(InputError, match="models that can rewind"):
        SpeculativeGreedy().search(able, unable, cache(5), cache(5), limits, max_length=3)
    other = StepModel(able.step, select, PAD, A, able.rewind)
    with pytest.raises(InputError, match="different padding or end token"):
        SpeculativeGreedy().search(able, other, cache(5), cache(5), limits, max_length=3)
