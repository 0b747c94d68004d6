"""The compiled step of each kind of mesh: its collectives counted by hand, and the steps it takes."""

import contextlib
import functools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from parallel import ALL, DATA, FSDP, ONE, ROWS, SOURCE, TARGET, TENSOR, TIED, make_batch, mesh_of

from transformer_jax.config import Adam, BatchConfig, Experiment, ModelConfig, Numerals, Schedule, TrainingConfig
from transformer_jax.initialisation import abstract_parameters
from transformer_jax.models import Transformer
from transformer_jax.programs import collectives, moved_by_kind
from transformer_jax.sharding import batch_sharding, on_mesh
from transformer_jax.training.objectives import batch_loss
from transformer_jax.training.step import Trainer

SPLIT = (DATA, FSDP, TENSOR, ALL)

EXPERIMENT = Experiment(
    data=Numerals(),
    model=TIED,
    batch=BatchConfig(rows=ROWS, source_length=SOURCE, target_length=TARGET),
    optimizer=Adam(),
    schedule=Schedule(kind="constant", peak=1e-3, warmup_steps=0),
    training=TrainingConfig(steps=10, average_decay=0.9),
)


@functools.cache
def trainer(shape):
    return Trainer(EXPERIMENT, mesh_of(shape), total_steps=10)


@functools.cache
def birth(shape):
    """The compiled program that makes the state before the first step."""
    places = trainer(shape).state_sharding
    return jax.jit(trainer(shape).new_state, out_shardings=places).lower().compile()


@functools.cache
def batch_on(shape):
    return [jax.device_put(leaf, batch_sharding(mesh_of(shape))) for leaf in jax.tree.leaves(make_batch())]


@functools.cache
def step(shape):
    """The compiled step, of a state, the leaves of a batch, and what asks it to stop."""
    ours, structure = trainer(shape), jax.tree.structure(make_batch())

    def with_leaves(state, leaves, asked):
        return ours.step(state, jax.tree.unflatten(structure, leaves), asked)

    program = jax.jit(with_leaves, out_shardings=(ours.state_sharding, None))
    lowered = program.lower(ours.abstract_state, batch_on(shape), ours.asked(0))
    with standard_error() as said:
        compiled = lowered.compile()
        assert (
            "rematerialization" not in said()
        )  # "[SPMD] Involuntary full rematerialization", of what XLA cannot split
    return compiled


@contextlib.contextmanager
def standard_error():
    """What the process writes there, XLA included, as a function to be called within the block."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), 2**20, 0).decode()
        finally:
            os.dup2(before, 2)
            os.close(before)


@functools.cache
def run(shape):
    """The state before the first of five steps, the parameters behind them, and their reports."""
    state, told = birth(shape)(), []
    first = jax.device_get(state)
    for _ in range(5):
        state, report = step(shape)(state, batch_on(shape), trainer(shape).asked(0))
        told.append(np.asarray(report))
    return first, jax.device_get(state.params), np.stack(told)


@pytest.mark.parametrize(
    "shape", [*SPLIT[-2:], *(pytest.param(s, marks=pytest.mark.slow) for s in SPLIT[:-2])], ids=str
)
def test_the_first_state_is_the_same_to_the_bit(shape):
    jax.tree.map(np.testing.assert_array_equal, run(shape)[0], run(ONE)[0])


@pytest.mark.parametrize("shape", SPLIT, ids=str)
def test_five_steps_of_adam_are_those_of_one_device(shape):
    (_, params, told), (_, expected, expected_told) = run(shape), run(ONE)
    np.testing.assert_allclose(told, expected_told, atol=2e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4), params, expected)


@pytest.mark.parametrize("shape", [FSDP, ALL], ids=str)
def test_no_device_ever_holds_more_of_a_leaf_than_its_part(shape):
    text = birth(shape).as_text()
    made = {math.prod(map(int, sizes.split(","))) for sizes in re.findall(r"[fu]32\[([\d,]+)\]", text)}
    leaves = jax.tree.leaves(trainer(shape).abstract_state)
    assert max(made) == max(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    assert not collectives(text)
    held = sum(4 * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    memory = birth(shape).memory_analysis()
    assert held <= memory.output_size_in_bytes < 1.1 * held + 8 * len(leaves)  # and a table of where they lie
    matrices = [leaf for leaf in leaves if leaf.size >= TIED.width**2]
    assert {leaf.size // math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in matrices} == {
        mesh_of(shape).shape["fsdp"] * mesh_of(shape).shape["tensor"]
    }


def by_hand(shape):
    """Bytes that a device receives in a step of float32, by kind of collective, where data goes around in a ring."""
    (data, fsdp, tensor), (encoder, decoder) = shape, (TIED.encoder_layers, TIED.decoder_layers)
    width, channels, ffn = TIED.width, TIED.num_heads * TIED.channels, TIED.ffn_width
    source, target = (ROWS // (data * fsdp) * length * width for length in (SOURCE, TARGET))  # activations of a device
    attention, feed_forward = 4 * width * channels, 2 * width * ffn
    kernels = (encoder * (attention + feed_forward) + decoder * (2 * attention + feed_forward)) / tensor
    table = TIED.vocab_size * width / tensor
    vectors = encoder * 5 + decoder * 7  # of a layer: scale and bias of each norm, the last bias
    scales = encoder * 2 + decoder * 3

    def gathered(devices, numbers):
        return 4 * numbers * (devices - 1) / devices

    def reduced(devices, numbers):
        return 2 * gathered(devices, numbers)

    return {
        # Matrices for the forward pass and again for the backward pass; tokens for the lookup, by columns of the table.
        "all-gather": gathered(fsdp, 2 * (kernels + table) + (vectors + scales) * width)
        + gathered(fsdp, ROWS // data * (SOURCE + TARGET)),
        # What was looked up goes from columns to rows, its gradient back.
        "all-to-all": 2 * gathered(fsdp, source + target),
        # Gradients. The table has three, of two lookups and of the logits; those of lookups are of its own columns.
        "all-reduce": reduced(fsdp, kernels + table)
        + reduced(data, (kernels + 3 * table) / fsdp)
        + reduced(data * fsdp, vectors * width + (encoder + decoder) * ffn / tensor)
        # Activations: what was looked up, each sublayer's output, the gradient of what each of its products began with,
        # and five numbers a token for the loss.
        + reduced(tensor, source + target)
        + reduced(tensor, encoder * (2 + 3 + 1) * source + decoder * ((3 + 3 + 1 + 1) * target + 2 * source))
        + reduced(tensor, target + 5 * target / width),
    }


def assert_as_meant(found, shape):
    """Bytes by the hand count and a tenth; and of tables and stacks of kernels never the whole."""
    moved = {kind: size for kind, (_, size) in moved_by_kind(found).items()}
    expected = {kind: size for kind, size in by_hand(shape).items() if size}
    assert moved.keys() == expected.keys()
    for kind, size in expected.items():
        assert 0.5 * size < moved[kind] <= 1.1 * size, kind
    for one in found:
        if one.kind == "all-gather":
            sizes = [math.prod(whole) for whole in one.shapes]
            assert max(sizes) < TIED.vocab_size * TIED.width, "a whole table"
            assert not any(whole[:1] == (TIED.decoder_layers,) for whole in one.shapes), "a stack"


@pytest.mark.parametrize("shape", SPLIT, ids=str)
def test_the_collectives_of_a_step_are_those_meant(shape):
    assert_as_meant(collectives(step(shape).as_text()), shape)


def test_the_collectives_of_a_loop_over_layers():
    model, structure = Transformer(TIED, unroll=1), jax.tree.structure(make_batch())
    params = abstract_parameters(TIED, mesh_of(FSDP))
    places = jax.tree.map(lambda leaf: leaf.sharding, params)

    def grads(params, leaves):
        return jax.grad(lambda params: batch_loss(model, params, jax.tree.unflatten(structure, leaves)).loss)(params)

    program = jax.jit(on_mesh(mesh_of(FSDP), grads), out_shardings=places)
    found = collectives(program.lower(params, batch_on(FSDP)).compile().as_text())
    assert max(one.times for one in found) == TIED.decoder_layers
    assert_as_meant(found, FSDP)


def test_layers_computed_again_take_less_memory():
    sizes = {"encoder_layers": 9, "decoder_layers": 0, "width": 16, "num_heads": 2, "ffn_width": 64}
    config = ModelConfig(vocab_size=23, dropout=0.0, **sizes)
    shapes = jax.tree.map(lambda leaf: leaf.update(sharding=None), abstract_parameters(config, mesh_of(ONE)))
    tokens = jax.ShapeDtypeStruct((8, 48), np.int32)

    def temporary(remat):
        def loss(params, tokens):
            return Transformer(config, remat=remat).apply({"params": params}, tokens, method="encode")[0].sum()

        return jax.jit(jax.grad(loss)).lower(shapes, tokens).compile().memory_analysis().temp_size_in_bytes

    none, products, full = (temporary(remat) for remat in ("none", "products", "full"))
    assert full < 0.6 * products < 0.6 * 0.6 * none


@pytest.mark.skipif(
    not Path("/dev/nvidia1").exists(), reason="XLA makes reduce-scatter on GPUs only: needs two of them"
)
def test_gradients_are_reduced_and_scattered_on_gpus():
    script = Path(__file__).with_name("count_on_gpus.py")
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    told = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    moved = json.loads(told.stdout)
    runs, received = moved["reduce-scatter"]
    assert runs > 0
    assert received > moved["all-reduce"][1]  # only vectors are reduced whole
