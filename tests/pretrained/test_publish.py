"""Models of our own as checkpoints of a public family."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole import random_parameters

from transformer_jax.config import ModelConfig
from transformer_jax.data.tokenizer import OWN
from transformer_jax.errors import InputError
from transformer_jax.models import Transformer
from transformer_jax.pretrained import published, read_checkpoint, write_checkpoint
from transformer_jax.pretrained.publish import renumbered

CONFIG = ModelConfig(encoder_layers=1, decoder_layers=2, width=10, num_heads=5, ffn_width=14, vocab_size=13)
SOURCE = jnp.array([[5, 7, 9, 4, 1], [4, 11, 1, 0, 0]])
TARGET = jnp.array([[0, 3, 8, 12], [0, 6, 2, 9]])


@functools.partial(jax.jit, static_argnums=0)
def applied(config, params, source, target):
    return Transformer(config).apply({"params": params}, source, target)[0]


def log_probs(config, params):
    logits = applied(config, params, SOURCE, TARGET)
    return jax.nn.log_softmax(logits.at[..., config.pad_id].set(-jnp.inf))[..., 1:]


def published_log_probs(config, params):
    """Those of the published model, by our ids: there the end is first, the unknown one next, padding last."""
    order = renumbered(config.vocab_size, OWN)
    places = jnp.asarray(np.argsort(order))
    assert order.tolist() == [1, 2, *range(3, config.vocab_size), 0]
    logits = applied(config, params, places[SOURCE], places[TARGET])
    return jax.nn.log_softmax(logits[..., places].at[..., 0].set(-jnp.inf))[..., 1:]


@pytest.mark.parametrize("positions", ["interleaved", "halves"])
@pytest.mark.parametrize(("norm", "model_type"), [("post", "marian"), ("pre", "pegasus")])
def test_the_same_model(norm, model_type, positions, tmp_path):
    config = replace(CONFIG, norm=norm, positions=positions, norm_epsilon=1e-5)
    params = random_parameters(config)
    checkpoint = published(config, params, OWN, longest=17)
    assert checkpoint.model_type == model_type
    write_checkpoint(tmp_path, checkpoint)
    again = read_checkpoint(tmp_path)
    assert (again.config.pad_id, again.config.start, again.settings["eos_token_id"]) == (12, 12, 0)
    np.testing.assert_allclose(published_log_probs(again.config, again.params), log_probs(config, params), atol=1e-5)


def test_another_epsilon_changes_little():
    params = random_parameters(CONFIG)
    checkpoint = published(CONFIG, params, OWN, longest=17)
    found = published_log_probs(checkpoint.config, checkpoint.params)
    np.testing.assert_allclose(found, log_probs(CONFIG, params), atol=3e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positions": "learned"}, "model.positions='learned': Marian and Pegasus, .* have 'interleaved' or 'halves'"),
        ({"gated": True}, "model.gated=True"),
        ({"positions": "rotary"}, "model.positions='rotary'"),
        ({"norm": "deep"}, "model.norm='deep': Marian and Pegasus, .* have 'post' or 'pre'"),
        ({"query_key_norm": True}, "model.query_key_norm=True"),
        ({"kv_heads": 1}, "model.kv_heads=1: Marian and Pegasus, .* have None or 5"),
        ({"share_embeddings": "none"}, "model.share_embeddings='none'"),
        ({"encoder_layers": 0}, "an encoder and a decoder"),
        ({"head_width": 3}, "model.head_width=3: Marian and Pegasus have width / num_heads"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_they_do_not_have(fields, message):
    config = replace(CONFIG, **fields)
    with pytest.raises(InputError, match=message):
        published(config, random_parameters(config), OWN, longest=17)
