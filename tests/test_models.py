"""The whole model: what a logit may depend on, attention weights, its parts, shared embeddings."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIG, DECODER_ONLY, PRE, compiled, parameters, tokens

from transformer_jax import masks
from transformer_jax.inference import decoding_parameters
from transformer_jax.initialisation import init_parameters
from transformer_jax.layers import Embedding, sinusoids
from transformer_jax.models import Transformer
from transformer_jax.stacks import Decoder, Encoder


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
        cache = compiled(CONFIG, "start_cache", rows=1, beams=1, capacity=3)(params, None, None)
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
