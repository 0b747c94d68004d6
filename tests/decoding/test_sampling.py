"""Draws have the distribution they should have, and depend on the line alone."""

import collections
import math

import jax.numpy as jnp
import numpy as np
import pytest
from chains import EOS, PAD, A, B, random_tables, search, search_chain, select, step_of

from transformer_jax.decoding import Sampling, StepModel, keys_of_lines
from transformer_jax.errors import InputError

#   .5 --> EOS,  .3 --> A,  .2 --> B;  after A or B: .75 --> EOS, .25 --> A
CHAIN = np.array([[0, 0.5, 0.3, 0.2], [0, 1, 0, 0], [0, 0.75, 0.25, 0], [0, 0.75, 0.25, 0]])
LINES = 1999
LIMIT = 3


def draw(strategy, lines=LINES, seed=3):
    """The outputs of each line, each drawn from CHAIN."""
    cache, limits = jnp.zeros(lines * strategy.rows), jnp.full(lines, LIMIT)
    model = StepModel(step_of(CHAIN), select, PAD, EOS)
    keys = keys_of_lines(seed, np.arange(lines))
    hypotheses = strategy.search(model, cache, limits, max_length=LIMIT, keys=keys)
    return [
        [tuple(row[:length]) for row, length in zip(rows, lengths, strict=True)]
        for rows, lengths in zip(hypotheses.tokens.tolist(), hypotheses.lengths.tolist(), strict=True)
    ], hypotheses


def distribution(chain):
    """The probability of every output of up to LIMIT tokens."""
    outputs, open_ = {}, {(): 1.0}
    for _ in range(LIMIT):
        longer = {(*t, v): p * chain[t[-1] if t else PAD][v] for t, p in open_.items() for v in (EOS, A, B)}
        open_ = {t: p for t, p in longer.items() if p > 0 and t[-1] != EOS}
        outputs |= {t: p for t, p in longer.items() if p > 0 and t[-1] == EOS}
    return outputs | open_


def tempered(chain, temperature):
    powers = chain ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def cut(chain, keeps):
    kept = np.where(keeps, chain, 0)
    return kept / kept.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("strategy", "chain"),
    [
        (Sampling(), CHAIN),
        (Sampling(samples=3), CHAIN),
        (Sampling(temperature=0.5), tempered(CHAIN, 0.5)),
        (Sampling(temperature=2.0), tempered(CHAIN, 2.0)),
        (Sampling(top_k=2), cut(CHAIN, CHAIN > 0.2)),
        (Sampling(top_k=1), cut(CHAIN, CHAIN >= 0.5)),
        (Sampling(top_p=0.76), cut(CHAIN, CHAIN > 0.2)),
        (Sampling(top_p=0.74), cut(CHAIN, [[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])),
        (Sampling(min_p=0.5), cut(CHAIN, [[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])),
        # Of .5 and .3, the two that stay, .625 is enough.
        (Sampling(top_k=2, top_p=0.6), cut(CHAIN, CHAIN >= 0.5)),
        (Sampling(temperature=2.0, min_p=0.7), cut(tempered(CHAIN, 2.0), CHAIN > 0.25)),
    ],
)
def test_the_distribution(strategy, chain):
    drawn, hypotheses = draw(strategy)
    outputs = [output for line in drawn for output in line]
    counts, expected = collections.Counter(outputs), distribution(np.asarray(chain))
    assert set(counts) <= set(expected)
    for output, probability in expected.items():
        deviation = math.sqrt(probability * (1 - probability) / len(outputs))
        assert counts[output] / len(outputs) == pytest.approx(probability, abs=4.5 * deviation)
    # What is reported is the model's probability, whatever it was drawn by.
    own = distribution(CHAIN)
    reported = np.exp(np.asarray(hypotheses.log_probs)).reshape(-1)
    np.testing.assert_allclose(reported, [own[output] for output in outputs], rtol=1e-5)
    np.testing.assert_array_equal(hypotheses.scores, hypotheses.log_probs)


def test_a_draw_depends_on_its_line_and_its_sample_alone():
    tables = random_tables(37, 5, 6, 4)
    limits = np.array([4, 3, 4, 2, 4])

    def sample(sentences, samples, seed=3):
        keys = keys_of_lines(seed, np.asarray(sentences) + 100)
        chosen = jnp.asarray(sentences)
        return search(Sampling(samples), tables, chosen, jnp.asarray(limits[sentences]), 4, keys=keys).tokens.tolist()

    together = sample([0, 1, 2, 3, 4], 3)
    assert sample([3, 0], 3) == [together[3], together[0]]
    assert [row[:2] for row in together] == sample([0, 1, 2, 3, 4], 2)
    assert together != sample([0, 1, 2, 3, 4], 3, seed=4)


def test_samples_and_lines_differ():
    drawn, _ = draw(Sampling(samples=2))
    first, second = zip(*drawn, strict=True)
    same = np.mean([one == other for one, other in zip(first, second, strict=True)])
    assert same == pytest.approx(sum(p * p for p in distribution(CHAIN).values()), abs=0.05)
    neighbours = np.mean([one == other for one, other in zip(first[1:], first[:-1], strict=True)])
    assert neighbours == pytest.approx(sum(p * p for p in distribution(CHAIN).values()), abs=0.05)


def test_a_limit_of_zero_draws_nothing():
    model = StepModel(step_of(CHAIN), select, PAD, EOS)
    hypotheses = Sampling(2).search(
        model, jnp.zeros(2), jnp.array([0]), max_length=3, keys=keys_of_lines(0, np.array([7]))
    )
    assert not hypotheses.lengths.any()
    assert (hypotheses.scores == -math.inf).all()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: Sampling(samples=0), "samples=0 must be at least 1"),
        (lambda: Sampling(temperature=0.0), "temperature=0.0 must be above 0"),
        (lambda: Sampling(temperature=math.nan), "temperature=nan must be above 0"),
        (lambda: Sampling(top_k=0), "top_k=0 must be at least 1"),
        (lambda: Sampling(top_p=0.0), "top_p=0.0 must be above 0 and at most 1"),
        (lambda: Sampling(top_p=1.5), "top_p=1.5 must be above 0 and at most 1"),
        (lambda: Sampling(min_p=-0.1), "min_p=-0.1 must be 0 to 1"),
        (lambda: search_chain(Sampling(), CHAIN, limit=3), "Sampling needs keys"),
    ],
)
def test_mistakes_are_named(mistake, message):
    with pytest.raises(InputError, match=message):
        mistake()
