"""The same numbers on every mesh: loss and gradients in float64, dropout, and a plain pmap step beside them."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from parallel import ALL, DATA, FSDP, ONE, TENSOR, TIED, UNTIED, make_batch, mesh_of

from transformer_jax import projection
from transformer_jax.attention import blockwise_attention, paths
from transformer_jax.config import TrainingConfig
from transformer_jax.dropout import dropout
from transformer_jax.initialisation import abstract_parameters
from transformer_jax.models import Transformer
from transformer_jax.projection import vocabulary_sums
from transformer_jax.sharding import batch_sharding, on_mesh
from transformer_jax.training.objectives import batch_loss
from transformer_jax.training.step import gradients


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def in_float64(config):
    """The config with activations in float64, which no experiment may ask for."""
    config = replace(config)
    object.__setattr__(config, "dtype", "float64")
    return config


@functools.cache
def parameters(config):
    random = np.random.default_rng(1)
    shapes = abstract_parameters(config, mesh_of(ONE))
    return jax.tree.map(lambda leaf: random.normal(0.05, 0.2, leaf.shape), shapes)


@functools.cache
def first_step(config, shape, accumulation=1, unroll=1, **options):
    """Loss and gradients of the first step, on the host."""
    mesh, model = mesh_of(shape), Transformer(in_float64(config), unroll, **options)
    training = TrainingConfig(steps=1, accumulation=accumulation)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract_parameters(config, mesh))

    def compute(params, batch):
        return gradients(model, params, batch, jax.random.key(5), training)

    step = jax.jit(
        on_mesh(mesh, compute),
        in_shardings=(places, batch_sharding(mesh)),
        out_shardings=(places, None),
    )
    grads, sums = jax.device_get(step(parameters(config), make_batch()))
    return float(sums.loss), grads


def assert_equal(left, right):
    """Within 1e-12 of the loss, and of the largest gradient of each parameter."""
    assert left[0] == pytest.approx(right[0], rel=1e-12)
    for one, other in zip(jax.tree.leaves(left[1]), jax.tree.leaves(right[1]), strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())


@pytest.mark.parametrize("shape", [DATA, FSDP, TENSOR, ALL], ids=str)
def test_the_first_step_on_a_mesh_is_that_of_one_device(shape):
    assert_equal(first_step(TIED, shape), first_step(TIED, ONE))


def test_pre_norm_with_every_matrix_of_its_own_and_dropout():
    assert_equal(first_step(UNTIED, ALL), first_step(UNTIED, ONE))


def test_sums_of_logits_by_a_table_that_is_gathered_in_blocks_of_unequal_sizes():
    random, mesh = np.random.default_rng(0), mesh_of(FSDP)
    x, table, bias = (random.normal(size=shape) for shape in ((16, 3, 24), (50, 24), (50,)))
    targets, weights = jax.numpy.asarray(random.integers(0, 50, (16, 3))), random.normal(size=(3, 16, 3))

    def gradients(*arrays):
        def weighted(x, table, bias):
            *sums, _ = vocabulary_sums(x, table, targets, bias)  # the largest has no gradient
            return sum((weights[i] * part).sum() for i, part in enumerate(sums))

        return jax.value_and_grad(weighted, argnums=(0, 1, 2))(*arrays)

    def by_definition(x, table, bias):
        logits = x @ table.T + bias
        one_hot = jax.nn.one_hot(targets, 50)
        sums = jax.nn.logsumexp(logits, -1), (one_hot * logits).sum(-1), logits.sum(-1)
        return sum((weights[i] * part).sum() for i, part in enumerate(sums))

    with jax.numpy_rank_promotion("allow"):
        value, expected = jax.value_and_grad(by_definition, argnums=(0, 1, 2))(x, table, bias)
    places = (batch_sharding(mesh), jax.NamedSharding(mesh, jax.P(None, "fsdp")), jax.NamedSharding(mesh, jax.P()))
    program = jax.jit(on_mesh(mesh, gradients), in_shardings=places, out_shardings=(None, places))
    found, split = program(x, table, bias)
    assert float(found) == pytest.approx(float(value), rel=1e-12)
    for one, other in zip(split, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())


def test_unrolled_layers_that_are_computed_again():
    assert_equal(first_step(TIED, ALL, unroll=2, remat="full"), first_step(TIED, ONE))


def test_layers_of_which_all_but_products_is_computed_again():
    assert_equal(first_step(TIED, ONE, remat="products"), first_step(TIED, ONE))


@pytest.mark.parametrize("shape", [FSDP, pytest.param(ALL, marks=pytest.mark.slow)], ids=str)
def test_attention_and_logits_in_blocks(shape, monkeypatch):
    whole = first_step(UNTIED, ONE)
    monkeypatch.setattr(projection, "LARGEST", 4 * 16 * 7 * 17)  # bytes of the logits of 17 words, in all
    monkeypatch.setattr(paths, "WHOLE", 2)
    monkeypatch.setattr(paths, "blockwise_attention", functools.partial(blockwise_attention, block=3))
    assert_equal(first_step(UNTIED, shape, remat="none"), whole)  # another call than those that are kept


def test_parts_of_a_batch_that_hold_different_numbers_of_tokens():
    tokens = make_batch().target.weights.reshape(8, 2, -1).sum((0, 2))
    assert tokens[0] != tokens[1]
    assert_equal(first_step(TIED, ALL, accumulation=2), first_step(TIED, ONE))


def test_a_plain_pmap_step():
    model, (rows, structure) = Transformer(in_float64(TIED), unroll=1), jax.tree.flatten(make_batch())

    @functools.partial(jax.pmap, axis_name="devices", in_axes=(None, 0))
    def step(params, rows):
        batch = jax.tree.unflatten(structure, rows)

        def summed(params):
            return batch_loss(model, params, batch, label_smoothing=0.1).loss

        loss, grads = jax.value_and_grad(summed)(params)
        loss, grads, tokens = jax.lax.psum((loss, grads, batch.target_tokens()), "devices")
        return loss, jax.tree.map(lambda grad: grad / tokens, grads)

    of_each = [leaf.reshape(8, -1, *leaf.shape[1:]) for leaf in rows]
    loss, grads = jax.tree.map(lambda leaf: leaf[0], jax.device_get(step(parameters(TIED), of_each)))
    assert_equal((float(loss), grads), first_step(TIED, DATA))
    tokens = make_batch().target.weights.reshape(8, -1).sum(1)
    assert len(set(tokens)) > 4  # a mean of the devices' means would be another number


def test_dropout_is_the_same_on_any_mesh_and_another_in_every_row():
    def drop(x):
        return dropout(x, 0.5, jax.random.key(3))

    places = [batch_sharding(mesh_of(shape)) for shape in (ONE, DATA, ALL)]
    kept = [jax.jit(drop, in_shardings=place, out_shardings=place)(np.ones((16, 3, 41))) for place in places]
    assert [len(mask.sharding.device_set) for mask in kept] == [1, 8, 8]
    assert {np.asarray(mask).tobytes() for mask in kept} == {np.asarray(kept[0]).tobytes()}
    assert len({row.tobytes() for row in np.asarray(kept[0])}) == 16
