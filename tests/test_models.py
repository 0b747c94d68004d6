"""The whole model: what a logit may depend on, decoding with a cache, shared embeddings, stacked layers, counts."""

import functools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from transformer_jax import masks
from transformer_jax.config import ModelConfig
from transformer_jax.inference import decoding_parameters
from transformer_jax.initialisation import init_parameters
from transformer_jax.layers import Embedding, sinusoids
from transformer_jax.models import Transformer
from transformer_jax.stacks import Decoder, Encoder

CONFIG = ModelConfig(
    encoder_layers=1,
    decoder_layers=2,
    width=10,
    num_heads=2,
    head_width=3,
    ffn_width=7,
    vocab_size=13,
    max_positions=17,
    dropout=0.0,
)
PRE = replace(CONFIG, norm="pre")
DECODER_ONLY = replace(CONFIG, encoder_layers=0)


@functools.cache
def parameters(config):
    """Random parameters in which no bias is zero; drawing them by numpy saves compiling the initialisation."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        return (random.normal(0, 0.3, leaf.shape) + (path[-1].key == "scale")).astype(np.float32)

    shapes = jax.eval_shape(lambda: init_parameters(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def compiled(config, method="__call__", unroll=1, **static):
    model = Transformer(config, unroll)  # not unrolled it compiles faster
    return jax.jit(
        lambda params, *inputs, **options: model.apply({"params": params}, *inputs, **options, **static, method=method)
    )


def tokens(seed, *shape):
    """Random tokens other than padding."""
    return jax.random.randint(jax.random.key(seed), shape, 1, CONFIG.vocab_size)


class TestWhatALogitDependsOn:
    @pytest.mark.parametrize("config", [CONFIG, PRE, DECODER_ONLY], ids=["post", "pre", "decoder-only"])
    def test_causality_by_gradient(self, config):
        params, target, memory = parameters(config), tokens(1, 1, 5), jax.random.normal(jax.random.key(2), (1, 3, 10))
        probe = jax.random.normal(jax.random.key(3), (config.vocab_size,))

        def probed_logits(shift, params):  # shift is added to the embedded target tokens
            def add_shift(method, arguments, options, context):
                output = method(*arguments, **options)
                is_lookup = isinstance(context.module, Embedding) and context.method_name == "__call__"
                return output + shift if is_lookup else output

            with nn.intercept_methods(add_shift):
                inputs = (target, memory) if config.encoder_layers else (target,)
                logits, _ = Transformer(config, 1).apply({"params": params}, *inputs, method="decode")
            return logits[0] @ probe

        jacobian = jax.jit(jax.jacrev(probed_logits))(jnp.zeros((1, 5, 10)), params)[:, 0]  # -> [T T D]
        depends = np.abs(jacobian).max(-1)
        np.testing.assert_array_equal(np.triu(depends, 1), 0.0)
        assert depends[np.tril_indices(5)].min() > 1e-4

    def test_padding_changes_nothing(self):
        source, target = tokens(4, 2, 5), tokens(5, 2, 7)
        logits, _ = compiled(CONFIG)(parameters(CONFIG), source, target)
        padded, _ = compiled(CONFIG)(
            parameters(CONFIG), jnp.pad(source, ((0, 0), (0, 3))), jnp.pad(target, ((0, 0), (0, 2)))
        )
        np.testing.assert_allclose(padded[:, :7], logits, atol=1e-5)

    @pytest.mark.parametrize(
        "config",
        [
            CONFIG,
            replace(PRE, positions="learned"),
            replace(PRE, positions="relative", embed_padding=True),
            replace(PRE, positions="rotary", head_width=4, kv_heads=1),
        ],
        ids=["post", "pre-learned", "pre-relative", "pre-rotary"],
    )
    def test_neighbours_in_a_row_change_nothing(self, config):
        sources, targets = [tokens(6, 1, 2), tokens(7, 1, 5)], [tokens(8, 1, 7), tokens(9, 1, 3)]
        rubbish = tokens(10, 1, 4)  # behind the last sentence; its segment of 0 hides it
        logits, _ = compiled(config)(
            parameters(config),
            jnp.concatenate([*sources, rubbish], 1),
            jnp.concatenate([*targets, rubbish], 1),
            source_segments=jnp.array([[1] * 2 + [2] * 5 + [0] * 4]),
            target_segments=jnp.array([[1] * 7 + [2] * 3 + [0] * 4]),
            source_positions=jnp.array([[*range(2), *range(5), *range(4)]]),
            target_positions=jnp.array([[*range(7), *range(3), *range(4)]]),
        )
        assert jnp.isfinite(logits).all()
        for source, target, place in zip(sources, targets, [slice(0, 7), slice(7, 10)], strict=True):
            alone, _ = compiled(config)(parameters(config), source, target)
            np.testing.assert_allclose(logits[:, place], alone, atol=1e-5)

    def test_the_other_source_matters(self):
        logits = [compiled(CONFIG)(parameters(CONFIG), tokens(s, 2, 5), tokens(5, 2, 7))[0] for s in (4, 6)]
        assert np.abs(logits[0] - logits[1]).max(-1).min() > 1e-3  # at every position


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
        start = compiled(self.config, "start_cache", rows=SENTENCES * BEAMS, capacity=LENGTH + 2)
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

    def test_select_drops_and_repeats_sentences(self, name):
        cached, rows = Cached(CACHED[name]), jnp.array([4, 3, 5, 3, 4, 5])  # the second sentence, twice
        _, cache, _ = cached.step(cached.tokens[:, :3], cached.start())
        logits, _, _ = cached.step(cached.tokens[:, 3:4], cache.select(rows))
        prefix = jnp.concatenate([cached.tokens[rows, :3], cached.tokens[:, 3:]], 1)
        expected, _ = cached.full(prefix, sentences=(1,) * 6)
        np.testing.assert_allclose(logits[:, 0], expected[:, 3], atol=1e-4)


class TestAttentionWeights:
    def test_rows_sum_to_1_and_the_masked_is_zero(self):
        source_segments, target_segments = jnp.array([[1, 1, 2, 2, 2, 0, 0]]), jnp.array([[1, 2, 2, 2, 0]])
        _, weights = compiled(CONFIG, return_attention=True)(
            parameters(CONFIG),
            tokens(1, 1, 7),
            tokens(2, 1, 5),
            source_segments=source_segments,
            target_segments=target_segments,
        )
        allowed = {
            "encoder": masks.segment_mask(source_segments, source_segments),
            "decoder": masks.segment_mask(target_segments, target_segments) & masks.causal_mask(5),
            "cross": masks.segment_mask(target_segments, source_segments),
        }
        for name, mask in allowed.items():
            found = getattr(weights, name)
            assert found.shape == (1 if name == "encoder" else 2, 1, 2, *mask.shape[2:])
            np.testing.assert_array_equal(found > 0, np.broadcast_to(mask, found.shape))
            np.testing.assert_allclose(found.sum(-1), np.broadcast_to(mask.any(-1), found.shape[:-1]), atol=1e-5)


class TestParts:
    def test_a_call_is_encode_and_decode(self):
        source, target = tokens(1, 2, 5).at[0, 3:].set(0), tokens(2, 2, 7)
        params = parameters(CONFIG)
        memory, _ = compiled(CONFIG, "encode")(params, source)
        segments = (source != 0).astype(jnp.int32)
        logits, _ = compiled(CONFIG, "decode")(params, target, memory, memory_segments=segments)
        np.testing.assert_allclose(logits, compiled(CONFIG)(params, source, target)[0], atol=1e-6)

    @pytest.mark.parametrize("config", [CONFIG, PRE], ids=["post", "pre"])
    def test_encoder_and_decoder_alone(self, config):
        params, source, target = parameters(config), tokens(1, 2, 5), tokens(2, 2, 7)
        table, places = params["embedding"]["table"], sinusoids(7, 10)
        embedded_source = jnp.asarray(table[source] * np.sqrt(10, dtype=np.float32) + places[:5])
        embedded_target = jnp.asarray(table[target] * np.sqrt(10, dtype=np.float32) + places)

        @jax.jit
        def by_parts():
            memory, _ = Encoder(config, 1).apply({"params": params["encoder"]}, embedded_source)
            decoder, mask = {"params": params["decoder"]}, masks.causal_mask(7)
            return Decoder(config, 1).apply(decoder, embedded_target, memory, mask)[0] @ table.T

        np.testing.assert_allclose(by_parts(), compiled(config)(params, source, target)[0], atol=1e-5)

    def test_encoder_only(self):
        config = replace(CONFIG, decoder_layers=0)
        params = parameters(config)
        assert set(params) == {"embedding", "encoder"}
        features, _ = compiled(config, "encode")(params, tokens(1, 2, 5))
        assert features.shape == (2, 5, 10)

    def test_a_decoder_without_its_memory_says_so(self):
        with pytest.raises(ValueError, match="memory is None: this decoder attends to the output of an encoder"):
            compiled(CONFIG, "decode")(parameters(CONFIG), tokens(1, 1, 3))
        params = decoding_parameters(parameters(CONFIG))
        cache = compiled(CONFIG, "start_cache", rows=1, capacity=3)(params, None, None)
        with pytest.raises(ValueError, match="started without a memory"):
            compiled(CONFIG, "step")(params, tokens(1, 1, 1), cache)

    def test_bfloat16_stays_near_float32(self):
        arguments = parameters(CONFIG), tokens(1, 2, 5), tokens(2, 2, 7)
        exact, _ = compiled(CONFIG)(*arguments)
        rounded, _ = compiled(replace(CONFIG, dtype="bfloat16"))(*arguments)
        assert rounded.dtype == jnp.float32  # the logits
        difference = np.abs(rounded - exact).max() / np.abs(exact).max()
        assert 1e-4 < difference < 0.05  # 8 bits of mantissa, and not the same numbers


class TestEmbeddingsShared:
    CASES = (
        ("all", None, {"embedding": 13}),
        ("target", 11, {"source_embedding": 11, "target_embedding": 13}),
        ("target", None, {"source_embedding": 13, "target_embedding": 13}),
        ("none", 11, {"source_embedding": 11, "target_embedding": 13, "output": (10, 13)}),
    )

    @pytest.mark.parametrize(("share", "source_vocab_size", "expected"), CASES)
    def test_by_the_parameters(self, share, source_vocab_size, expected):
        config = replace(CONFIG, share_embeddings=share, source_vocab_size=source_vocab_size)
        params = jax.eval_shape(lambda: init_parameters(config, jax.random.key(0)))
        sizes = {name: next(iter(part.values())).shape for name, part in params.items() if "coder" not in name}
        assert sizes == {name: size if name == "output" else (size, 10) for name, size in expected.items()}

    def test_output_bias_is_added(self):
        config = replace(CONFIG, output_bias=True)
        params = {**parameters(CONFIG), "output_bias": np.arange(13, dtype=np.float32)}
        plain, _ = compiled(CONFIG)(parameters(CONFIG), tokens(1, 2, 5), tokens(2, 2, 7))
        biased, _ = compiled(config)(params, tokens(1, 2, 5), tokens(2, 2, 7))
        np.testing.assert_allclose(biased, plain + np.arange(13)[None, None], atol=1e-5)


class TestStackedLayers:
    def test_depths_are_independent_and_lead(self):
        params = parameters(CONFIG)
        assert {leaf.shape[0] for leaf in jax.tree.leaves(params["encoder"]["layers"])} == {1}
        assert {leaf.shape[0] for leaf in jax.tree.leaves(params["decoder"]["layers"])} == {2}

    def test_decoding_parameters_are_the_layers_one_by_one(self):
        params = parameters(PRE)
        taken_apart = decoding_parameters(params)
        assert set(taken_apart["decoder"]) == {"layer_0", "layer_1", "norm"}
        assert taken_apart["encoder"] is params["encoder"]
        for index in range(2):
            layer = dict(flatten_dict(taken_apart["decoder"][f"layer_{index}"]))
            for path, stacked in flatten_dict(params["decoder"]["layers"]).items():
                own = layer.pop((*path[:-1], "transposed")).T if path[-1] == "kernel" else layer.pop(path)
                np.testing.assert_array_equal(own, stacked[index])
            assert not layer

    def test_decoding_parameters_have_their_kernels_in_the_dtype_of_the_products(self):
        changed = flatten_dict(decoding_parameters(parameters(PRE), "bfloat16"))
        low = {path[-1] for path, leaf in changed.items() if leaf.dtype == jnp.bfloat16}
        assert low == {"transposed"}

    def test_unrolling_changes_no_bit_of_the_parameters(self):
        unrolled, both = init_parameters(CONFIG, jax.random.key(0)), (jnp.zeros((1, 2), jnp.int32),) * 2
        model = Transformer(CONFIG, unroll=1)
        params = jax.jit(lambda: nn.meta.unbox(model.init(jax.random.key(0), *both)))()["params"]
        jax.tree.map(np.testing.assert_array_equal, params, unrolled)
        first, second = params["decoder"]["layers"]["feed_forward"]["inner"]["kernel"]
        assert not np.isin(first, second).any()

    def test_every_sublayer_of_every_layer_draws_its_own_mask_unrolled_or_computed_again_or_not(self):
        masks_drawn = visible_dropout_masks(unroll=1)
        np.testing.assert_array_equal(masks_drawn, visible_dropout_masks(unroll=2))
        np.testing.assert_array_equal(masks_drawn, visible_dropout_masks(unroll=1, remat="full"))
        assert len({mask.tobytes() for mask in masks_drawn}) == 4
        assert all(0.4 < mask.mean() < 0.6 for mask in masks_drawn)


def visible_dropout_masks(unroll, remat="none"):
    """The masks of two encoder layers of two sublayers, by weights that make these add 1, 2, 4 and 8.

    Normalisation gives ones, attention passes them on times 1 or 4, the feed-forward network gives its last bias.
    """
    config = ModelConfig(encoder_layers=2, width=16, num_heads=2, ffn_width=3, norm="pre", dropout=0.5)
    params = jax.tree.map(np.zeros_like, parameters(config)["encoder"])
    layers = params["layers"]
    layers["self_attention_frame"]["norm"]["bias"] += 1
    layers["self_attention"]["value"]["kernel"] += np.eye(16, dtype=np.float32)
    layers["self_attention"]["out"]["kernel"] += np.stack([np.eye(16), 4 * np.eye(16)]).astype(np.float32)
    layers["feed_forward"]["outer"]["bias"] += np.array([[2.0], [8.0]], np.float32)
    output, _ = jax.jit(
        lambda: Encoder(config, unroll, remat).apply(
            {"params": params},
            jnp.zeros((2, 17, 16)),
            rngs={"dropout": jax.random.key(0)},
            method=lambda encoder, x: encoder.layers(x, None, False, False, None),
        )
    )()
    sums = np.asarray(output / 2).astype(int)  # what dropout keeps is doubled
    return np.stack([sums >> bit & 1 for bit in range(4)])
