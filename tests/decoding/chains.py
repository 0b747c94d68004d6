"""Models that are tables or Markov chains drawn by hand, and plain searches to hold decoding against."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.decoding import StepModel

PAD, EOS, A, B = 0, 1, 2, 3


def next_logits(tables, tokens, cache):
    """The step of a model that is a table: logits of each sentence for each prefix, start token included.

    The cache is the prefix itself, as its number in the tree of all prefixes, and the sentence the row belongs to.
    """
    nodes = cache["node"] * tables.shape[-1] + 1 + tokens[:, 0]
    return tables[cache["sentence"], nodes][:, None], {**cache, "node": nodes}


def select(cache, rows):
    return jax.tree.map(lambda leaf: leaf[rows], cache)


def node_of(prefix, vocab_size):
    return functools.reduce(lambda node, token: node * vocab_size + 1 + token, (PAD, *prefix), 0)


def new_cache(sentences, width):
    rows = jnp.repeat(jnp.asarray(sentences), width)
    return {"node": jnp.zeros_like(rows), "sentence": rows}


def table_model(tables, eos_id=EOS):
    return StepModel(functools.partial(next_logits, tables), select, PAD, eos_id)


@functools.partial(jax.jit, static_argnames=("strategy", "max_length", "eos_id"))
def search(strategy, tables, sentences, limits, max_length, eos_id=EOS, constraints=(), keys=None):
    return strategy.search(
        table_model(tables, eos_id),
        new_cache(sentences, strategy.rows),
        limits,
        max_length=max_length,
        constraints=constraints,
        keys=keys,
    )


def random_tables(seed, num_sentences, vocab_size, max_length):
    """Logits for every prefix of up to max_length tokens; padding looks best everywhere."""
    num_nodes = (vocab_size ** (max_length + 2) - 1) // (vocab_size - 1)
    tables = np.random.default_rng(seed).normal(scale=1.5, size=(num_sentences, num_nodes, vocab_size))
    tables[:, :, PAD] = 9.0
    return jnp.asarray(tables, jnp.float32)


def log_softmax(logits):
    """The reference's own: float64, without padding."""
    logits = np.asarray(logits, np.float64).copy()
    logits[PAD] = -np.inf
    return logits - np.log(np.exp(logits).sum())


def score(log_prob, length, alpha):
    return log_prob / ((5 + length) / 6) ** alpha


def exhaustive_search(table, limit, alpha):
    """Every possible output as (score, tokens), best first."""
    vocab_size = table.shape[-1]
    found = []
    for length in range(1, limit + 1):
        for tokens in itertools.product(range(1, vocab_size), repeat=length):
            if EOS in tokens[:-1] or (length < limit and tokens[-1] != EOS):
                continue
            total = sum(log_softmax(table[node_of(tokens[:i], vocab_size)])[tokens[i]] for i in range(length))
            found.append((score(total, length, alpha), tokens))
    return sorted(found, reverse=True)


def reference_beam_search(table, limit, width, alpha, patience=None, narrow=False):
    """Beam search as (score, tokens), best first, written with lists; without patience it runs to the limit."""
    beams, finished = [(0.0, ())], []
    for length in range(1, limit + 1):
        candidates = reference_candidates(table, beams)[: 2 * width]
        ended = [c for c in candidates if c[1][-1] == EOS or length == limit]
        beams = [c for c in candidates if c not in ended][:width]
        counted = candidates[:width] if narrow else candidates
        finished += [(score(c[0], length, alpha), c[1]) for c in ended if c in counted]
        if patience is not None and len(finished) >= patience * width:
            break
    return sorted(finished, reverse=True)[:width]


def reference_candidates(table, beams, penalty=lambda token: 0.0):
    """All continuations by one token as (total, tokens), best first by the total less the penalty of the token."""
    candidates = []
    for total, tokens in beams:
        log_probs = log_softmax(table[node_of(tokens, table.shape[-1])])
        candidates += [(total + log_probs[i], (*tokens, i)) for i in range(1, len(log_probs))]
    return sorted(candidates, key=lambda c: c[0] - penalty(c[1][-1]), reverse=True)


def reference_diverse_search(table, limit, width, groups, diversity, alpha, n_best):
    """Each group in turn, one token at a time; every group gives its share of the n best."""
    share, own = -(-n_best // groups), width // groups
    beams, finished = [[(0.0, ())] for _ in range(groups)], [[] for _ in range(groups)]
    for length in range(1, limit + 1):
        used = []
        for group in range(groups):
            candidates = reference_candidates(
                table, beams[group], lambda token, used=tuple(used): diversity * used.count(token)
            )
            candidates = candidates[: 2 * own if own > 1 else 1]
            ended = [c for c in candidates if c[1][-1] == EOS or length == limit]
            finished[group] += [(score(total, length, alpha), tokens) for total, tokens in ended]
            beams[group] = [c for c in candidates if c not in ended][:own]
            best = sorted(finished[group], reverse=True)[:share]
            settled = len(best) == share and best[-1][0] >= max(
                (total / ((5 + limit) / 6) ** alpha for total, _ in beams[group]), default=-math.inf
            )
            used += [] if settled else [tokens[-1] for _, tokens in beams[group]]
            beams[group] = [] if settled else beams[group]
    lists = [sorted(outputs, reverse=True)[:share] for outputs in finished]
    return sorted((one for outputs in lists for one in outputs), reverse=True)[:n_best]


def reference_greedy(table, limit):
    tokens, total = (), 0.0
    while len(tokens) < limit and EOS not in tokens:
        log_probs = log_softmax(table[node_of(tokens, table.shape[-1])])
        tokens, total = (*tokens, int(log_probs.argmax())), total + log_probs.max()
    return total, tokens


def assert_found(hypotheses, sentence, expected):
    """The sentence's hypotheses are exactly these (score, tokens), and nothing where there are fewer."""
    tokens, lengths, scores = (
        np.asarray(field[sentence]) for field in (hypotheses.tokens, hypotheses.lengths, hypotheses.scores)
    )
    expected = expected[: len(scores)]
    padding = ((PAD,) * tokens.shape[-1],) * (len(scores) - len(expected))
    padded = [(*found, *[PAD] * (tokens.shape[-1] - len(found))) for _, found in expected]
    assert [tuple(row) for row in tokens.tolist()] == [*padded, *padding]
    assert lengths.tolist() == [len(found) for _, found in expected] + [0] * len(padding)
    np.testing.assert_allclose(scores[: len(expected)], [value for value, _ in expected], atol=1e-5)
    assert np.all(scores[len(expected) :] == -np.inf)


def step_of(chain):
    """The step of a model whose next token depends on the last one alone, by these probabilities."""
    return lambda tokens, cache: (jnp.log(jnp.asarray(chain, jnp.float32))[tokens], cache)


def search_chain(strategy, chain, limit, max_length=17, pad_id=PAD, step=None):
    """Decodes one sentence."""
    cache, limits = jnp.zeros((strategy.rows,)), jnp.array([limit])
    model = StepModel(step or step_of(chain), select, pad_id, EOS)
    return strategy.search(model, cache, limits, max_length=max_length)


def found(hypotheses):
    """The hypotheses of the only sentence as (tokens without padding, probability to 5 digits)."""
    rows = zip(hypotheses.tokens[0].tolist(), hypotheses.lengths[0].tolist(), strict=True)
    probabilities = np.exp(np.asarray(hypotheses.log_probs[0], np.float64)).round(5).tolist()
    return [(row[:length], p) for (row, length), p in zip(rows, probabilities, strict=True)]
