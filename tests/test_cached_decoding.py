"""Decoding with a cache is decoding all at once, whatever the model, the chunks and the rows."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIG, DECODER_ONLY, PRE, compiled, parameters, tokens

from transformer_jax.inference import decoding_parameters

CACHED = {
    "post-interleaved-all": CONFIG,
    "pre-halves-target-bias": replace(PRE, positions="halves", share_embeddings="target", output_bias=True),
    "post-authors-none-bias": replace(CONFIG, positions="authors", share_embeddings="none", output_bias=True),
    "pre-learned-none-gated": replace(PRE, positions="learned", share_embeddings="none", gated=True),
    "decoder-only": DECODER_ONLY,
    "pre-relative-inputs-rms": replace(
        PRE,
        positions="relative",
        relative_buckets=4,
        relative_distance=5,
        share_embeddings="inputs",
        norm_type="rms",
        scale_attention=False,
        ffn_bias=False,
        embed_padding=True,
        start_id=2,
    ),
    "post-relative-own-biases": replace(
        CONFIG,
        positions="relative",
        relative_buckets=8,
        relative_distance=9,
        relative_per_layer=True,
        attention_bias=True,
        embedding_norm=True,
        scale_embeddings=False,
        scale_outputs=True,
    ),
    "pre-rotary-grouped-rms": replace(
        PRE, positions="rotary", num_heads=4, kv_heads=2, head_width=4, query_key_norm=True, norm_type="rms"
    ),
    "deep-rotary-multi-query-decoder-only": replace(
        DECODER_ONLY, norm="deep", positions="rotary", rotary_base=50.0, kv_heads=1, head_width=4
    ),
}
OTHERS = [replace(PRE, positions="interleaved"), replace(CONFIG, positions="halves"), replace(PRE, positions="authors")]
OTHERS += [replace(CONFIG, positions="learned"), replace(PRE, positions="learned", position_offset=3)]
OTHERS += [replace(CONFIG, positions="halves", position_offset=2)]
SENTENCES, BEAMS, LENGTH = 2, 3, 5
SEGMENTS = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1]])  # the first source is shorter


class Cached:
    """Six rows, three beams of each of two sentences, decoded with a cache and, by `full`, all at once."""

    def __init__(self, config):
        self.config = config
        self.params = parameters(config)
        self.stepping = decoding_parameters(self.params)
        self.tokens = tokens(1, SENTENCES * BEAMS, LENGTH).at[:, 0].set(config.pad_id)
        self.memory, self.segments = None, None
        if config.encoder_layers:
            self.memory, _ = compiled(config, "encode")(self.params, tokens(2, SENTENCES, 4), SEGMENTS)
            self.segments = SEGMENTS

    def full(self, tokens, sentences=(0, 0, 0, 1, 1, 1)):
        if self.memory is None:
            return compiled(self.config, "decode", return_attention=True)(self.params, tokens)
        memory, segments = self.memory[np.array(sentences)], self.segments[np.array(sentences)]
        decode = compiled(self.config, "decode", return_attention=True)
        return decode(self.params, tokens, memory, memory_segments=segments)

    def start(self):
        start = compiled(self.config, "start_cache", rows=SENTENCES * BEAMS, beams=BEAMS, capacity=LENGTH + 2)
        return start(self.stepping, self.memory, self.segments)

    def step(self, tokens, cache):
        return compiled(self.config, "step", return_attention=True)(self.stepping, tokens, cache)


def prefixes_are_those_of_full_decoding(cached, chunks):
    logits, _ = cached.full(cached.tokens)
    cache, start = cached.start(), 0
    for length in chunks:
        step_logits, cache, _ = cached.step(cached.tokens[:, start : start + length], cache)
        np.testing.assert_allclose(step_logits, logits[:, start : start + length], atol=1e-4)
        start += length
    np.testing.assert_array_equal(cache.lengths, [LENGTH] * 6)


@pytest.fixture(scope="module", params=CACHED)
def cached(request):
    return Cached(CACHED[request.param])


@pytest.mark.slow
@pytest.mark.parametrize("config", OTHERS, ids=lambda config: f"{config.norm}-{config.positions}")
def test_the_other_pairs_of_norm_and_positions(config):
    prefixes_are_those_of_full_decoding(Cached(config), [1, 3, 1])


def test_a_cache_holds_the_heads_of_keys_and_values_alone():
    cache = Cached(CACHED["pre-rotary-grouped-rms"]).start()
    assert {layer.past.key.shape for layer in cache.layers} == {(SENTENCES * BEAMS, 2, LENGTH + 2, 4)}
    assert {layer.memory.value.shape for layer in cache.layers} == {(SENTENCES, 2, 4, 4)}


class TestCachedDecoding:
    @pytest.mark.parametrize("chunks", [[1, 1, 1, 1, 1], [5], [1, 3, 1]], ids=str)
    def test_it_is_full_decoding_whatever_the_chunks(self, cached, chunks):
        prefixes_are_those_of_full_decoding(cached, chunks)

    def test_rows_may_hold_different_lengths(self, cached):
        logits, _ = cached.full(cached.tokens)
        lengths = np.array([1, 2, 3, 4, 1, 2])
        _, cache, _ = cached.step(cached.tokens, cached.start())  # what lies behind the length is overwritten
        for step in range(2):
            cache = replace(cache, lengths=jnp.asarray(np.minimum(lengths + step, LENGTH - 1)))
            next_tokens = jnp.take_along_axis(cached.tokens, cache.lengths[:, None], axis=1)
            step_logits, _, _ = cached.step(next_tokens, cache)
            np.testing.assert_allclose(step_logits[:, 0], logits[np.arange(6), cache.lengths], atol=1e-4)

    def test_attention_weights_are_those_of_full_decoding(self, cached):
        _, full = cached.full(cached.tokens)
        _, _, weights = cached.step(cached.tokens, cached.start())
        np.testing.assert_allclose(weights.self_attention[..., :LENGTH], full.self_attention, atol=1e-5)
        np.testing.assert_array_equal(weights.self_attention[..., LENGTH:], 0.0)
        if cached.memory is None:
            assert weights.cross_attention is None
        else:
            np.testing.assert_allclose(weights.cross_attention, full.cross_attention, atol=1e-5)


@pytest.mark.parametrize("name", ["post-interleaved-all", "decoder-only"])
class TestRowsOfACache:
    def test_reorder_within_sentences(self, name):
        cached, rows = Cached(CACHED[name]), jnp.array([2, 0, 0, 4, 5, 3])
        _, cache, _ = cached.step(cached.tokens[:, :3], cached.start())
        logits, _, _ = cached.step(cached.tokens[:, 3:4], cache.reorder(rows))
        expected, _ = cached.full(jnp.concatenate([cached.tokens[rows, :3], cached.tokens[:, 3:]], 1))
        np.testing.assert_allclose(logits[:, 0], expected[:, 3], atol=1e-4)
