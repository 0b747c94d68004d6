"""Stacked layers: independent, taken apart for decoding, the same bits unrolled or not."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from small_models import CONFIG, PRE, compiled, parameters, tokens

from transformer_jax.config import ModelConfig
from transformer_jax.inference import decoding_parameters
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer
from transformer_jax.stacks import Encoder


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
        params = parameters(PRE)
        changed = flatten_dict(decoding_parameters(params, "bfloat16"))
        low = {path[-1] for path, leaf in changed.items() if leaf.dtype == jnp.bfloat16}
        assert low == {"transposed"}
        for path, whole in flatten_dict(params["encoder"]).items():
            if path[-1] == "kernel":
                own = changed["encoder", *path[:-1], "transposed"]
                np.testing.assert_array_equal(own, whole.swapaxes(1, 2).astype(jnp.bfloat16))

    @pytest.mark.parametrize("config", [CONFIG, PRE], ids=lambda config: config.norm)
    def test_the_encoder_gives_the_same_from_kernels_in_bfloat16(self, config):
        """Up to the last of 8 bits of features below 4."""
        config, params = replace(config, dtype="bfloat16"), parameters(config)
        encode, source = compiled(config, "encode"), tokens(2, 3, 7)
        memory, _ = encode(params, source, jnp.ones_like(source))
        again, _ = encode(decoding_parameters(params, "bfloat16"), source, jnp.ones_like(source))
        assert again.dtype == jnp.bfloat16
        np.testing.assert_allclose(again.astype(jnp.float32), memory.astype(jnp.float32), atol=2**-6)

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
