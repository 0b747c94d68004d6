"""Optimizers beside Adam: updates by hand, what they keep and where it lies, and runs that stop in between."""

import functools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parallel import ALL, ONE, ROWS, SOURCE, TARGET, TIED, make_batch, mesh_of

from transformer_jax.config import (
    Adafactor,
    BatchConfig,
    Experiment,
    Lion,
    Muon,
    Numerals,
    Schedule,
    ScheduleFree,
    TrainingConfig,
)
from transformer_jax.initialisation import initialise
from transformer_jax.sharding import state_shardings
from transformer_jax.training import loop
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.optimizer import evaluation_point, make_optimizer
from transformer_jax.training.planning import bytes_on_a_device
from transformer_jax.training.step import Trainer
from transformer_jax.training.trained import joined, rates_of, scaled, trained

RATE = 0.5
MODEL = replace(TIED, encoder_layers=2, decoder_layers=0)
KINDS = {
    "adafactor": Adafactor(least_factored=5),
    "lion": Lion(),
    "muon": Muon(),
    "schedule_free": ScheduleFree(),
}
each = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def first_updates(config, gradients, params, **options):
    optimizer = make_optimizer(config, lambda count: RATE, **options)
    return jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p))(gradients, params)[0]


class TestByHand:
    def test_lion_goes_by_signs_and_decays_matrices(self):
        params = {"kernel": jnp.array([[2.0, -4.0]]), "bias": jnp.array([3.0])}
        gradients = {"kernel": jnp.array([[1e-3, 0.0]]), "bias": jnp.array([-7.0])}
        updates = first_updates(Lion(weight_decay=0.25), gradients, params)
        np.testing.assert_allclose(updates["kernel"], [[-RATE * (1 + 0.5), RATE]], rtol=1e-5)  # 0.25 * (2, -4)
        np.testing.assert_allclose(updates["bias"], [RATE], rtol=1e-5)

    def test_adafactor_of_rows_times_columns_goes_by_signs(self):
        """Squares that are a row times a column are what their factors give, so that each is divided by itself."""
        rows, columns = jnp.array([1.0, -2.0, 5.0, 3.0, -1.0]), jnp.array([3.0, 1.0, -4.0, 1.0, 5.0, -9.0])
        gradient, config = rows[:, None] * columns[None], Adafactor(least_factored=5, relative=False)
        params = {"kernel": jnp.full((5, 6), 2.0)}
        updates = first_updates(config, {"kernel": gradient}, params)
        np.testing.assert_allclose(updates["kernel"], -RATE * jnp.sign(gradient), rtol=1e-4)
        relative = first_updates(replace(config, relative=True), {"kernel": gradient}, params)
        np.testing.assert_allclose(relative["kernel"], 2.0 * updates["kernel"], rtol=1e-4)
        clipped = first_updates(replace(config, clip=0.25), {"kernel": gradient}, params)
        np.testing.assert_allclose(clipped["kernel"], updates["kernel"] / 4, rtol=1e-4)

    @pytest.mark.parametrize("relative", [True, False])
    def test_adafactor_takes_each_of_stacked_layers_for_itself(self, relative):
        """As optax has it where they are parameters of their own, of sizes far apart."""
        sizes = jnp.array([1.0, 1e-2, 1e2])[:, None, None]
        stacked = {"kernel": draw(3, 3, 5, 7) * sizes, "bias": draw(4, 3, 7) * sizes[..., 0]}
        gradients = {"kernel": draw(5, 3, 5, 7) / sizes, "bias": draw(6, 3, 7).at[1].set(0.0)}
        config, params = Adafactor(least_factored=5, relative=relative, clip=0.5), {"layers": stacked}
        ours, theirs = (
            make_optimizer(config, lambda count: RATE),
            optax.adafactor(
                RATE, min_dim_size_to_factor=5, multiply_by_parameter_scale=relative, clipping_threshold=0.5
            ),
        )
        apart = [jax.tree.map(lambda leaf, layer=layer: leaf[layer], (stacked, gradients)) for layer in range(3)]
        state, states = ours.init(params), [theirs.init(own) for own, _ in apart]
        for _ in range(2):
            updates, state = ours.update({"layers": gradients}, state, params)
            for layer, (own, gradient) in enumerate(apart):
                wanted, states[layer] = theirs.update(gradient, states[layer], own)
                for name in ("kernel", "bias"):
                    np.testing.assert_allclose(updates["layers"][name][layer], wanted[name], rtol=1e-5)

    def test_muon_makes_kernels_of_layers_orthogonal_each_by_itself(self):
        gradient = draw(0, 2, 5, 7) * jnp.array([1.0, 1000.0])[:, None, None]
        gradients = {"layers": {"kernel": gradient, "bias": jnp.ones((2, 7))}, "table": jnp.array([[-9.0]])}
        params = jax.tree.map(jnp.zeros_like, gradients)
        updates = first_updates(Muon(), gradients, params)
        for layer in range(2):
            singular = np.linalg.svd(updates["layers"]["kernel"][layer], compute_uv=False)
            np.testing.assert_allclose(singular, RATE * 0.2 * 7**0.5, rtol=0.35)  # 0.2 on average, in 5 x 7
        np.testing.assert_allclose(updates["layers"]["bias"], -RATE, rtol=1e-5)  # Adam's
        np.testing.assert_allclose(updates["table"], [[RATE]], rtol=1e-5)

    def test_schedule_free_is_its_three_sequences(self):
        config = ScheduleFree(beta1=0.75, beta2=0.5, epsilon=1e-12, weight_decay=0.0)
        schedule = [1.0, 2.0, 2.0]
        optimizer = make_optimizer(config, lambda count: jnp.array(schedule)[count], clip_norm=1e6)
        params = {"a": jnp.array(3.0)}
        state = optimizer.init(params)
        newest = mean = 3.0
        squares = weights = 0.0
        for step, rate in enumerate(schedule):
            gradient = 1.0 + step
            updates, state = optimizer.update({"a": jnp.array(gradient)}, state, params)
            params = optax.apply_updates(params, updates)
            squares = 0.5 * squares + 0.5 * gradient**2
            newest -= rate * gradient / np.sqrt(squares / (1 - 0.5 ** (step + 1)))
            weights += rate**2
            mean += rate**2 / weights * (newest - mean)
            np.testing.assert_allclose(params["a"], 0.75 * mean + 0.25 * newest, rtol=1e-5)
            np.testing.assert_allclose(evaluation_point(state, params)["a"], mean, rtol=1e-5)


@each
def test_a_loss_falls(config):
    """Of a linear layer that is to become another one."""
    inputs, wanted = draw(0, 31, 5), draw(1, 5, 7)
    optimizer = make_optimizer(config, optax.constant_schedule(0.03), clip_norm=10.0)

    def loss(params):
        kernel, bias = params["layers"]["kernel"][0], params["layers"]["bias"]
        return jnp.square(inputs @ (kernel - wanted) + bias).mean()

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = {"layers": {"kernel": 0.1 * draw(2, 1, 5, 7), "bias": jnp.ones((1, 7))}}
    trained_params, state = jax.jit(lambda p: jax.lax.fori_loop(0, 150, step, (p, optimizer.init(p))))(params)
    evaluated = evaluation_point(state, trained_params) if isinstance(config, ScheduleFree) else trained_params
    assert loss(evaluated) < 0.2 * loss(params)


@functools.cache
def boxed_state(config):
    """Of a tiny model, with logical axis names."""
    optimizer = make_optimizer(config, optax.constant_schedule(1e-2), 1.0)

    def init():
        params = initialise(MODEL, jax.random.key(0))
        return params, optimizer.init(params)

    return optimizer, jax.eval_shape(init)


@functools.cache
def three_updates(config, shape):
    """Parameters and state behind three updates by given gradients, and the abstract state with its places."""
    optimizer, boxed = boxed_state(config)
    places = state_shardings(boxed, mesh_of(shape))
    random = np.random.default_rng(0)
    params, gradients = (
        jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype(np.float32), nn.meta.unbox(boxed[0]))
        for _ in range(2)
    )

    def run(params, gradients):
        def update(step, carry):
            params, state = carry
            updates, state = optimizer.update(jax.tree.map(lambda g: g * (1.0 + step), gradients), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 3, update, (params, optimizer.init(params)))

    found = jax.jit(run, in_shardings=(places[0], places[0]), out_shardings=places)(params, gradients)
    return found, jax.tree.map(lambda leaf, place: leaf.update(sharding=place), nn.meta.unbox(boxed), places)


@each
def test_on_eight_devices_it_is_what_it_is_on_one(config):
    found, expected = three_updates(config, ALL)[0], three_updates(config, ONE)[0]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4), jax.device_get(found), expected)


@each
def test_its_state_lies_where_the_parameters_do(config):
    """Of as many axes as its parameter: in parts. Factored moments are whole, and small."""
    (params, state), (_, abstract) = three_updates(config, ALL)
    width, ffn = MODEL.width, MODEL.ffn_width
    split = {leaf.sharding.spec for leaf in jax.tree.leaves(state) if leaf.shape == (2, width, ffn)}
    assert split == (set() if isinstance(config, Adafactor) else {jax.P(None, "fsdp", "tensor")})
    held, whole = bytes_on_a_device(abstract), sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    if isinstance(config, Adafactor):
        assert held < 0.25 * whole
        factored = {
            leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim == 2 and leaf.sharding.is_fully_replicated
        }
        assert {(2, width), (2, ffn)} <= factored
    else:
        copies = {"lion": 1, "muon": 2, "schedule_free": 2}[config.kind]
        assert held < copies * whole / 3  # of 8 devices, 4 share a copy


@each
def test_what_is_frozen_stays_and_rates_count(config):
    training = TrainingConfig(
        steps=1, frozen=("embedding/*", "encoder/layers/1/*"), learning_rates=(("*/value/*", 0.5),)
    )
    rates = rates_of(MODEL, training)
    params = nn.meta.unbox(jax.eval_shape(lambda: initialise(MODEL, jax.random.key(0))))
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), params)

    def updated(scale):
        optimizer = make_optimizer(config, lambda count: 0.1, scale=scale)
        old = trained(rates, params)
        gradients = jax.tree.map(lambda leaf: jnp.arange(1.0, leaf.size + 1).reshape(leaf.shape), old)
        updates, state = optimizer.update(gradients, optimizer.init(old), old)
        new = optax.apply_updates(old, updates)
        points = [new, evaluation_point(state, new)] if isinstance(config, ScheduleFree) else [new]
        return [joined(point, params) for point in points]

    scales = (functools.partial(scaled, rates), lambda updates: updates)
    for scaled_params, plain in zip(*jax.jit(lambda: [updated(scale) for scale in scales])(), strict=True):
        np.testing.assert_array_equal(scaled_params["embedding"]["table"], 0.5)
        ours, theirs = (tree["encoder"]["layers"]["self_attention"] for tree in (scaled_params, plain))
        np.testing.assert_array_equal(ours["query"]["kernel"][1], 0.5)
        np.testing.assert_array_equal(ours["query"]["kernel"][0], theirs["query"]["kernel"][0])
        moved = theirs["value"]["kernel"][0] - 0.5
        assert np.abs(moved).max() > 1e-3
        np.testing.assert_allclose(ours["value"]["kernel"][0] - 0.5, moved / 2, atol=1e-6)


@each
def test_adapters_alone_are_trained(config):
    model = replace(MODEL, lora_rank=2)
    rates = rates_of(model, TrainingConfig(steps=1))
    shapes = nn.meta.unbox(jax.eval_shape(lambda: initialise(model, jax.random.key(0))))
    old = trained(rates, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes))
    optimizer = make_optimizer(config, lambda count: 0.1, 1.0)
    updates, _ = jax.jit(lambda p: optimizer.update(jax.tree.map(jnp.ones_like, p), optimizer.init(p), p))(old)
    moved = {path[-1].key: np.abs(leaf).min() for path, leaf in jax.tree_util.tree_leaves_with_path(updates)}
    assert moved.keys() == {"lora_a", "lora_b"}
    assert min(moved.values()) > 0


EXPERIMENT = Experiment(
    data=Numerals(),
    model=replace(TIED, decoder_layers=1),
    batch=BatchConfig(rows=ROWS, source_length=SOURCE, target_length=TARGET),
    optimizer=ScheduleFree(),
    schedule=Schedule(kind="constant", peak=1e-2, warmup_steps=0),
    training=TrainingConfig(steps=10, clip_norm=1.0),
)


@pytest.fixture(scope="module")
def trainer():
    return Trainer(EXPERIMENT, mesh_of(ONE), total_steps=10)


def steps(trainer, state, count):
    for _ in range(count):
        state, _ = trainer.train_step(state, make_batch(), trainer.asked(0))
    return state


@pytest.mark.slow
@each
def test_steps_of_training_on_eight_devices_are_those_on_one(config):
    experiment = replace(EXPERIMENT, optimizer=config, training=TrainingConfig(steps=10, clip_norm=1.0, accumulation=2))
    ends = []
    for shape in (ONE, ALL):
        trainer = Trainer(experiment, mesh_of(shape), total_steps=10)
        ends.append(jax.device_get(steps(trainer, trainer.new_state(), 3)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4), ends[0].evaluated, ends[1].evaluated)


def test_a_schedule_free_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(trainer, tmp_path):
    state = steps(trainer, trainer.new_state(), 2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, loop.items_of(state), {"step": 2})
        checkpoints.wait()
        items = checkpoints.restore(loop.items_of(trainer.abstract_state)).items
    uninterrupted = jax.device_get(steps(trainer, state, 2))
    restored = {"params": items["parameters"], **{name: items[name] for name in ("optimizer", "average")}}
    resumed = trainer.new_state().replace(step=trainer.step_number(2), **restored)
    resumed = jax.device_get(steps(trainer, resumed, 2))
    for name in ("params", "optimizer", "average"):
        jax.tree.map(np.testing.assert_array_equal, getattr(resumed, name), getattr(uninterrupted, name))


def test_a_schedule_free_run_is_evaluated_at_its_mean(trainer):
    state = steps(trainer, trainer.new_state(), 8)
    assert state.evaluated is state.average
    expected = evaluation_point(state.optimizer, state.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), state.average, expected)
    first, mean, between = (
        float(trainer.eval_step(params, make_batch()).log_loss)
        for params in (trainer.new_state().params, state.average, state.params)
    )
    assert mean < 0.9 * first
    assert mean != between
