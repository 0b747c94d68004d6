"""Real models through every strategy, against the whole model on whole sequences: no cache anywhere."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.config import ModelConfig
from transformer_jax.decoding import BeamSearch, Greedy, Prefix, Sentences, SpeculativeGreedy
from transformer_jax.inference import decoding_parameters, start_cache, step_model
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer

PAD, EOS, LIMIT = 0, 1, 7
BOTH = ModelConfig(
    encoder_layers=1, decoder_layers=2, width=10, num_heads=5, ffn_width=14, vocab_size=13, output_bias=True
)
DECODER = replace(BOTH, encoder_layers=0, norm="pre", positions="learned", max_positions=8)
SOURCE = np.array([[5, 7, 9, EOS, PAD], [4, EOS, PAD, PAD, PAD], [3, 3, 12, 11, EOS]], np.int32)
LIMITS = np.array([7, 4, 6], np.int32)
ALPHA = 0.6


def parameters(config, seed=2):
    """Larger than fresh ones, and with an end that comes at times."""
    params = jax.tree.map(lambda leaf: 3.0 * leaf, init_parameters(config, jax.random.key(seed)))
    return {**params, "output_bias": params["output_bias"].at[EOS].set(1.0)}


class Model:
    """A model in both ways."""

    def __init__(self, config):
        self.model, self.params = Transformer(config), parameters(config)
        self.source = jnp.asarray(SOURCE) if config.encoder_layers else None
        self.decoding = decoding_parameters(self.params)
        self._whole = jax.jit(self._full)

    def _full(self, params, target):
        if self.source is None:
            logits, _ = self.model.apply({"params": params}, target, method="decode")
        else:
            logits, _ = self.model.apply({"params": params}, self.source, target)
        return jax.nn.log_softmax(logits.at[..., PAD].set(-jnp.inf))

    def log_probs(self, sentence, prefix):
        """Of what may follow a prefix, in one sentence."""
        target = np.zeros((3, LIMIT + 1), np.int32)
        target[sentence, 1 : len(prefix) + 1] = prefix
        return np.asarray(self._whole(self.params, target)[sentence, len(prefix)], np.float64)

    def search(self, strategy, constraints=(), *, copying=False):
        """`copying` exchanges rows by copying all that they hold."""

        @jax.jit
        def run(params, constraints):
            rows, beams = 3 * strategy.rows, 1 if copying else strategy.beams
            cache = start_cache(self.model, params, self.source, rows=rows, beams=beams, capacity=LIMIT)
            model = step_model(self.model, params, EOS)
            model = replace(model, select=copied) if copying else model
            return strategy.search(model, cache, jnp.asarray(LIMITS), max_length=LIMIT, constraints=constraints)

        return run(self.decoding, constraints)


def copied(cache, rows):
    layers = (replace(layer, past=jax.tree.map(lambda x: x[rows], layer.past)) for layer in cache.layers)
    return replace(cache, layers=tuple(layers))


@pytest.fixture(scope="module", params=[BOTH, DECODER], ids=["encoder-decoder", "decoder"])
def model(request):
    return Model(request.param)


def reference(model, sentence, width, prompt=()):
    """Beam search with lists, run to the limit: the best output."""
    beams, finished = [(0.0, ())], []
    for length in range(1, int(LIMITS[sentence]) + 1):
        candidates = []
        for total, tokens in beams:
            log_probs = model.log_probs(sentence, tokens)
            allowed = range(1, 13) if length > len(prompt) else [prompt[length - 1]]
            candidates += [(total + log_probs[token], (*tokens, token)) for token in allowed]
        candidates = sorted(candidates, reverse=True)[: 2 * width if width > 1 else 1]
        ended = [one for one in candidates if one[1][-1] == EOS or length == LIMITS[sentence]]
        beams = [one for one in candidates if one not in ended][:width]
        finished += [(total / ((5 + length) / 6) ** ALPHA, tokens) for total, tokens in ended]
    return max(finished)[1]


def check(model, width):
    found = model.search(BeamSearch(width, ALPHA))
    for sentence in range(3):
        tokens = found.tokens[sentence, 0, : found.lengths[sentence, 0]].tolist()
        assert tuple(tokens) == reference(model, sentence, width)


@pytest.mark.parametrize("width", [2, 5, *(pytest.param(width, marks=pytest.mark.slow) for width in (1, 3, 4))])
def test_a_cache_changes_nothing_whatever_the_width(model, width):
    check(model, width)


def test_groups_exchange_their_beams_as_if_they_were_copied(model):
    strategy = BeamSearch(6, ALPHA, n_best=6, groups=2, diversity=9.0)
    by_table, by_copies = model.search(strategy), model.search(strategy, copying=True)
    np.testing.assert_array_equal(by_table.tokens, by_copies.tokens)
    np.testing.assert_allclose(by_table.scores, by_copies.scores, rtol=1e-6)
    assert len({tuple(tokens) for tokens in by_table.tokens[2].tolist()}) > 3  # the groups have others


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["interleaved", "halves", "authors", "learned"])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("encoder_layers", [0, 1])
def test_a_cache_changes_nothing_whatever_the_parts(encoder_layers, norm, positions):
    config = replace(BOTH, encoder_layers=encoder_layers, norm=norm, positions=positions, max_positions=8)
    model = Model(config)
    for width in (1, 3):
        check(model, width)


def test_a_prompt_is_a_prefix(model):
    width = 3
    prompts = [(6, 2, 8), (), (11,)]
    tokens = np.zeros((3, 3), np.int32)
    for sentence, prompt in enumerate(prompts):
        tokens[sentence, : len(prompt)] = prompt
    prefix = Prefix(jnp.asarray(tokens), jnp.array([len(prompt) for prompt in prompts]))
    found = model.search(BeamSearch(width, ALPHA), (prefix,))
    for sentence, prompt in enumerate(prompts):
        output = tuple(found.tokens[sentence, 0, : found.lengths[sentence, 0]].tolist())
        assert output == reference(model, sentence, width, prompt)
        assert output[: len(prompt)] == prompt


@pytest.mark.parametrize(("guesses", "same"), [(2, False), pytest.param(3, True, marks=pytest.mark.slow)])
def test_speculative_decoding_is_greedy(model, guesses, same):
    expected = model.search(Greedy())
    draft_params = model.decoding if same else decoding_parameters(parameters(model.model.config, seed=3))

    @jax.jit
    def run(params, draft_params):
        caches = [
            start_cache(model.model, own, model.source, rows=3, beams=1, capacity=LIMIT, ahead=guesses)
            for own in (params, draft_params)
        ]
        large, draft = (step_model(model.model, own, EOS) for own in (params, draft_params))
        strategy = SpeculativeGreedy(draft, guesses)
        state = strategy.start(large, Sentences(tuple(caches), jnp.asarray(LIMITS), (), None, LIMIT))
        state = strategy.advance_until(large, state, 0)
        return strategy.results(state), state.rounds.max()

    found, steps = run(model.decoding, draft_params)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-4)
    longest = int(expected.lengths.max())
    assert -(-longest // (guesses + 1)) <= int(steps) <= longest
    if same:
        assert int(steps) == -(-longest // (guesses + 1))
