"""Greedy and beam search on chains drawn by hand, against exhaustive search and against a slow, plain reference."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import (
    EOS,
    PAD,
    A,
    B,
    assert_found,
    exhaustive_search,
    found,
    node_of,
    random_tables,
    reference_beam_search,
    reference_diverse_search,
    reference_greedy,
    search,
    search_chain,
    step_of,
)

from transformer_jax.decoding import BeamSearch, Greedy, Sampling, StepModel, keys_of_lines, length_penalty
from transformer_jax.errors import InputError

#                 .55
#         .6 .--> A ----> EOS        A, EOS:     .6 * .55       = .33   greedy goes here
#   start --+     '-.45-> A          A, A, EOS:  .6 * .45 * .55 = .1485
#         .4 '--> B ----> EOS        B, EOS:     .4 * 1         = .4    the best
#                  1.0
GARDEN_PATH = [[0, 0, 0.6, 0.4], [0, 1, 0, 0], [0, 0.55, 0.45, 0], [0, 1, 0, 0]]

#         .52 .--> EOS                           EOS:        log .52 / (6/6) = -.654
#   start ----+                 1.0     1.0
#         .48 '--> A -----> B -----> EOS         A, B, EOS:  log .48 / (8/6) = -.550
SHORT_OR_LONG = [[0, 0.52, 0.48, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]

#   start --> A --> B --> A --> B --> ...
NEVER_ENDS = [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]

#   start, and every A after it: .9 --> EOS, .1 --> A
ENDS_SOON = [[0, 0.9, 0.1, 0], [0, 1, 0, 0], [0, 0.9, 0.1, 0], [0, 1, 0, 0]]


def test_greedy_follows_the_garden_path():
    assert found(search_chain(Greedy(), GARDEN_PATH, limit=5)) == [([A, EOS], 0.33)]


def test_beam_search_sees_past_it():
    beam = BeamSearch(width=2, length_penalty=0.0, n_best=2)
    assert found(search_chain(beam, GARDEN_PATH, limit=5)) == [([B, EOS], 0.4), ([A, EOS], 0.33)]


def test_beam_search_lists_the_best_of_all_lengths():
    hypotheses = search_chain(BeamSearch(width=3, length_penalty=0.0, n_best=3), GARDEN_PATH, limit=5)
    assert found(hypotheses) == [([B, EOS], 0.4), ([A, EOS], 0.33), ([A, A, EOS], 0.1485)]


@pytest.mark.parametrize(("alpha", "best"), [(0.0, [EOS]), (1.0, [A, B, EOS])])
def test_length_penalty_favours_longer_outputs(alpha, best):
    hypotheses = search_chain(BeamSearch(width=2, length_penalty=alpha, n_best=2), SHORT_OR_LONG, limit=5)
    assert found(hypotheses)[0][0] == best
    expected = sorted([math.log(0.52), math.log(0.48) / (8 / 6) ** alpha], reverse=True)
    np.testing.assert_allclose(hypotheses.scores[0], expected, atol=1e-6)


def test_length_penalty_of_the_paper():
    np.testing.assert_allclose(length_penalty(jnp.array([1, 7, 13]), 1.0), [1, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(length_penalty(jnp.array([1, 7, 13]), 0.0), [1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(length_penalty(jnp.array([1, 7, 19]), 0.6), [1, 1.515717, 2.297397], rtol=1e-6)
    assert BeamSearch() == BeamSearch(width=4, length_penalty=0.6, n_best=1)


def test_other_toolkits_divide_by_the_length_itself():
    hypotheses = search_chain(BeamSearch(2, 1.0, n_best=2, length_offset=0.0), SHORT_OR_LONG, limit=5)
    np.testing.assert_allclose(hypotheses.scores[0], [math.log(0.48) / 3, math.log(0.52)], atol=1e-6)


@pytest.mark.parametrize("width", [2, 3])
def test_ends_may_count_within_the_beam_alone(width):
    limits = [5, 4, 2, 5, 3]
    beam = BeamSearch(width, 0.6, n_best=width, narrow_ends=True)
    for seed in range(4):
        tables = random_tables(seed, len(limits), vocab_size=5, max_length=5)
        hypotheses = search(beam, tables, jnp.arange(len(limits)), jnp.array(limits), 5)
        for sentence, limit in enumerate(limits):
            expected = reference_beam_search(np.asarray(tables[sentence]), limit, width, 0.6, narrow=True)
            assert_found(hypotheses, sentence, expected)


#   start, and every A after it:  .5 padding, .3 --> A, .2 --> EOS
PADDED = [[0.5, 0.2, 0.3, 0], [0, 1, 0, 0], [0.5, 0.2, 0.3, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("strategy", [Greedy(), BeamSearch(2, 0.0), Sampling(top_k=1)], ids=["greedy", "beam", "draw"])
def test_padding_may_keep_its_share_of_the_probability(strategy, counts):
    model = StepModel(step_of(PADDED), lambda cache, rows: cache[rows], PAD, EOS, counts_padding=counts)
    keys = keys_of_lines(seed=1, lines=jnp.array([0]))
    outputs = strategy.search(model, jnp.zeros(strategy.rows), jnp.array([1]), max_length=1, keys=keys)
    assert found(outputs) == [([A], 0.3 if counts else 0.6)]


def test_decoding_may_start_from_another_token():
    model = StepModel(step_of(GARDEN_PATH), lambda cache, rows: cache[rows], PAD, EOS, start_id=B)
    assert found(Greedy().search(model, jnp.zeros(1), jnp.array([5]), max_length=5)) == [([EOS], 1.0)]


def test_a_limit_finishes_what_is_open():
    """At limit 2, A A (.27) did not end, and is ranked among those that did: B EOS (.4) and A EOS (.33)."""
    hypotheses = search_chain(BeamSearch(width=3, length_penalty=0.6, n_best=3), GARDEN_PATH, limit=2)
    assert found(hypotheses) == [([B, EOS], 0.4), ([A, EOS], 0.33), ([A, A], 0.27)]
    expected = [math.log(p) / (7 / 6) ** 0.6 for p in (0.4, 0.33, 0.27)]
    np.testing.assert_allclose(hypotheses.scores[0], expected, atol=1e-6)


@pytest.mark.parametrize("strategy", [Greedy(), BeamSearch(width=2)])
def test_an_output_without_an_end_is_kept_whole(strategy):
    assert found(search_chain(strategy, NEVER_ENDS, limit=3))[0] == ([A, B, A], 1.0)


def test_limits_reach_no_further_than_the_buffer():
    assert found(search_chain(Greedy(), NEVER_ENDS, limit=7, max_length=2)) == [([A, B], 1.0)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.3])
@pytest.mark.parametrize(("vocab_size", "max_length"), [(4, 3), (3, 4)])
def test_a_wide_beam_is_exhaustive_search(vocab_size, max_length, alpha, seed):
    width = vocab_size**max_length
    beam = BeamSearch(width=width, length_penalty=alpha, n_best=width)
    limits = [max_length, max_length - 1, 1]
    tables = random_tables(seed, len(limits), vocab_size, max_length)
    hypotheses = search(beam, tables, jnp.arange(len(limits)), jnp.array(limits), max_length)
    for sentence, limit in enumerate(limits):
        assert_found(hypotheses, sentence, exhaustive_search(tables[sentence], limit, alpha))


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize(("width", "n_best"), [(2, 2), (3, 1), (4, 3)])
def test_a_narrow_beam_is_the_reference_run_to_its_limit(width, n_best, alpha):
    limits = [5, 4, 2, 5, 3]
    for seed in range(4):
        tables = random_tables(seed, len(limits), vocab_size=7, max_length=5)
        hypotheses = search(BeamSearch(width, alpha, n_best), tables, jnp.arange(len(limits)), jnp.array(limits), 5)
        for sentence, limit in enumerate(limits):
            expected = reference_beam_search(np.asarray(tables[sentence]), limit, width, alpha)
            assert_found(hypotheses, sentence, expected)


@pytest.mark.parametrize("patience", [0.5, 1.5])
def test_patience_stops_when_so_many_have_finished(patience):
    limits = [5, 4, 2, 5, 3]
    beam = BeamSearch(3, 0.6, n_best=3, stopping="patience", patience=patience)
    for seed in range(3):
        tables = random_tables(seed, len(limits), vocab_size=5, max_length=5)
        hypotheses = search(beam, tables, jnp.arange(len(limits)), jnp.array(limits), 5)
        for sentence, limit in enumerate(limits):
            expected = reference_beam_search(np.asarray(tables[sentence]), limit, 3, 0.6, patience)
            assert_found(hypotheses, sentence, expected)


@pytest.mark.parametrize(("groups", "n_best"), [(4, 4), (2, 3)])
def test_groups_avoid_what_those_before_took(groups, n_best):
    limits = [5, 4, 2, 5, 3]
    beam = BeamSearch(4, 0.6, n_best, groups=groups, diversity=0.7)
    for seed in range(3):
        tables = random_tables(seed, len(limits), vocab_size=5, max_length=5)
        hypotheses = search(beam, tables, jnp.arange(len(limits)), jnp.array(limits), 5)
        for sentence, limit in enumerate(limits):
            expected = reference_diverse_search(np.asarray(tables[sentence]), limit, 4, groups, 0.7, 0.6, n_best)
            assert_found(hypotheses, sentence, expected)


def test_groups_find_other_outputs():
    """Apart, two beams of one both go to A (.33); at a price above log(.6 / .4) = .405, the second goes to B (.4)."""
    for diversity, other in ((0.4, [A, EOS]), (0.41, [B, EOS])):
        beam = BeamSearch(2, 0.0, n_best=2, groups=2, diversity=diversity)
        outputs = [tokens for tokens, _ in found(search_chain(beam, GARDEN_PATH, limit=5))]
        assert sorted(outputs) == sorted([[A, EOS], other])


def test_greedy_takes_the_most_probable_token():
    limits = [5, 4, 2, 5, 3]
    tables = random_tables(11, len(limits), vocab_size=7, max_length=5)
    hypotheses = search(Greedy(), tables, jnp.arange(len(limits)), jnp.array(limits), 5)
    for sentence, limit in enumerate(limits):
        assert_found(hypotheses, sentence, [reference_greedy(np.asarray(tables[sentence]), limit)])


def test_a_beam_of_one_is_greedy():
    """On SHORT_OR_LONG a runner-up would win by its length; a beam of one holds none."""
    assert found(search_chain(BeamSearch(width=1, length_penalty=1.0), SHORT_OR_LONG, limit=5)) == [([EOS], 0.52)]
    tables = random_tables(13, num_sentences=7, vocab_size=5, max_length=5)
    sentences, limits = jnp.arange(7), jnp.full((7,), 5)
    greedy, beam = (search(s, tables, sentences, limits, 5) for s in (Greedy(), BeamSearch(1, length_penalty=0.6)))
    np.testing.assert_array_equal(beam.tokens, greedy.tokens)
    np.testing.assert_array_equal(beam.log_probs, greedy.log_probs)
    np.testing.assert_allclose(beam.scores, greedy.log_probs / ((5 + greedy.lengths) / 6) ** 0.6, rtol=1e-6)


@pytest.mark.parametrize("strategy", [Greedy(), BeamSearch(width=3, n_best=3)])
def test_neighbours_do_not_matter(strategy):
    limits = np.array([5, 1, 3, 4])
    tables = random_tables(17, len(limits), vocab_size=5, max_length=5)
    together = search(strategy, tables, jnp.arange(4), jnp.array(limits), 5)
    order = [2, 0, 3, 1]
    shuffled = search(strategy, tables, jnp.array(order), jnp.array(limits[order]), 5)
    for sentence in range(4):
        alone = search(strategy, tables, jnp.array([sentence]), jnp.array(limits[[sentence]]), 5)
        for batch, place in ((together, sentence), (shuffled, order.index(sentence))):
            for own, leaf in zip(jax.tree.leaves(alone), jax.tree.leaves(batch), strict=True):
                np.testing.assert_array_equal(leaf[place], own[0])


def count_steps(strategy, chain, limit):
    calls = []

    def counted_step(tokens, cache):
        jax.debug.callback(lambda: calls.append(1))
        return step_of(chain)(tokens, cache)

    hypotheses = search_chain(strategy, chain, limit, step=counted_step)
    jax.effects_barrier()
    return len(calls), hypotheses


def test_greedy_stops_when_all_have_ended():
    steps, _ = count_steps(Greedy(), GARDEN_PATH, limit=11)
    assert steps == 2


def test_beam_search_stops_when_nothing_open_can_win():
    """After two steps EOS (.9) and A EOS (.09) have ended; A A (.01) is open.

    Its best at the limit of 7, with alpha 1, is log .01 / (12/6) = -2.303: below the list's log .09 / (7/6) = -2.064.
    """
    steps, hypotheses = count_steps(BeamSearch(width=2, length_penalty=1.0, n_best=2), ENDS_SOON, limit=7)
    assert steps == 2
    assert found(hypotheses) == [([EOS], 0.9), ([A, EOS], 0.09)]


def test_beam_search_goes_on_while_something_open_can_win():
    """With a limit of 13 it might still reach log .01 / (18/6) = -1.535; after A A A (.001), log .001 / 3 = -2.303."""
    steps, hypotheses = count_steps(BeamSearch(width=2, length_penalty=1.0, n_best=2), ENDS_SOON, limit=13)
    assert steps == 3
    assert found(hypotheses) == [([EOS], 0.9), ([A, EOS], 0.09)]


def test_the_best_alone_is_settled_sooner():
    """After one step A (.1) is open; at best log .1 / (18/6) = -.768, it could come second, never before EOS (.9)."""
    steps, hypotheses = count_steps(BeamSearch(width=2, length_penalty=1.0), ENDS_SOON, limit=13)
    assert steps == 1
    assert found(hypotheses) == [([EOS], 0.9)]


def test_rows_that_fill_the_batch_cost_no_step():
    steps, hypotheses = count_steps(Greedy(), GARDEN_PATH, limit=0)
    assert steps == 0
    assert_found(hypotheses, 0, [])


@pytest.mark.parametrize("strategy", [Greedy(), BeamSearch(width=3, n_best=3)])
def test_nan_ends_its_own_sentence_only(strategy):
    tables = random_tables(19, num_sentences=2, vocab_size=5, max_length=4)
    broken = tables.at[0, node_of((), 5)].set(jnp.nan)
    limits = jnp.array([4, 4])
    hypotheses = search(strategy, broken, jnp.arange(2), limits, 4)
    assert_found(hypotheses, 0, [])
    untouched = search(strategy, tables, jnp.arange(2), limits, 4)
    np.testing.assert_array_equal(hypotheses.tokens[1], untouched.tokens[1])
    np.testing.assert_array_equal(hypotheses.scores[1], untouched.scores[1])


def test_equal_candidates_come_by_token_id():
    """All four words (1, 2, 3 and an end token of 4) are equal: the first is taken, again and again."""
    tables = jnp.zeros((1, 5**4, 5))
    one, three = (
        search(s, tables, jnp.array([0]), jnp.array([2]), 2, eos_id=4) for s in (Greedy(), BeamSearch(3, 0.0, n_best=3))
    )
    assert one.tokens.tolist() == [[[1, 1]]]
    assert three.tokens.tolist() == [[[4, PAD], [1, 1], [1, 2]]]


def test_scores_are_float32_whatever_the_logits():
    tables = random_tables(23, num_sentences=1, vocab_size=5, max_length=3)
    halves = search(BeamSearch(2, n_best=2), tables.astype(jnp.bfloat16), jnp.array([0]), jnp.array([3]), 3)
    assert halves.scores.dtype == halves.log_probs.dtype == jnp.float32
    rounded = tables.astype(jnp.bfloat16).astype(jnp.float32)
    assert_found(halves, 0, reference_beam_search(np.asarray(rounded[0]), limit=3, width=2, alpha=0.6))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: BeamSearch(width=0), "width=0 must be at least 1"),
        (lambda: BeamSearch(length_penalty=-0.5), "length_penalty=-0.5 must not be negative"),
        (lambda: BeamSearch(length_penalty=math.nan), "length_penalty=nan must not be negative"),
        (lambda: BeamSearch(width=3, n_best=5), "n_best=5 must be 1 to 3, the width"),
        (lambda: BeamSearch(n_best=0), "n_best=0 must be 1 to 4, the width"),
        (lambda: BeamSearch(stopping="never"), "stopping='never' must be 'settled' or 'patience'"),
        (lambda: BeamSearch(patience=0.0), "patience=0.0 must be above 0"),
        (lambda: BeamSearch(width=4, groups=3), "groups=3 must divide width=4"),
        (lambda: BeamSearch(groups=0), "groups=0 must divide width=4"),
        (lambda: BeamSearch(diversity=-1.0), "diversity=-1.0 must not be negative"),
        (lambda: search_chain(Greedy(), GARDEN_PATH, limit=3, pad_id=EOS), "pad_id=1 is also eos_id"),
    ],
)
def test_mistakes_are_named(mistake, message):
    with pytest.raises(InputError, match=message) as error:
        mistake()
    assert "\n" not in str(error.value)
