"""The training step: exact accumulation, the same bits twice, the same numbers on any mesh."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.config import (
    Adam,
    BatchConfig,
    Experiment,
    MeshConfig,
    ModelConfig,
    Numerals,
    Schedule,
    StabilityConfig,
    TrainingConfig,
)
from transformer_jax.data.batch import Batch, Side
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer
from transformer_jax.sharding import ONE_DEVICE, make_mesh
from transformer_jax.training.objectives import batch_loss
from transformer_jax.training.step import (
    SETTLED,
    SPIKE,
    TOO_MANY_SKIPPED,
    StepReport,
    Trainer,
    gradients,
    moving_average,
)

MODEL = ModelConfig(
    encoder_layers=1, decoder_layers=1, width=6, num_heads=2, head_width=5, ffn_width=14, vocab_size=22, dropout=0.2
)
EXPERIMENT = Experiment(
    data=Numerals(),
    model=MODEL,
    batch=BatchConfig(rows=12, source_length=5, target_length=7),
    optimizer=Adam(epsilon=1.0),  # as large, updates depend smoothly on gradients that are close to zero
    schedule=Schedule(kind="constant", peak=0.5, warmup_steps=0),
    training=TrainingConfig(steps=10, average_decay=0.9),
    stability=StabilityConfig(max_skipped=3, spike=0.5),
    seed=3,
)


def side(random, lengths, length):
    tokens = random.integers(1, 22, (len(lengths), length))
    seen = np.arange(length) < np.asarray(lengths)[:, None]
    targets = random.integers(1, 22, tokens.shape).astype(np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    return Side(
        (tokens * seen).astype(np.int32), seen.astype(np.int32), positions, targets * seen, seen.astype(np.float32)
    )


@functools.cache
def make_batch():
    """Twelve rows whose thirds (every third row) hold very different numbers of tokens; the last row is padding."""
    random = np.random.default_rng(0)
    target = side(random, [7, 1, 2, 7, 1, 3, 7, 2, 1, 7, 1, 0], 7)
    source = side(random, [5, 3, 2, 5, 1, 4, 2, 2, 5, 3, 1, 0], 5)
    return Batch(replace(source, targets=None, weights=None), target, np.arange(12, dtype=np.int32)[:, None])


@functools.cache
def trainer(mesh):
    devices = jax.devices()[:1] if mesh == ONE_DEVICE else None
    return Trainer(EXPERIMENT, make_mesh(mesh, devices), total_steps=10)


def step(state, mesh=ONE_DEVICE, batch=None):
    """The next state and the report of the step that led to it, on the host."""
    state, told = trainer(mesh).train_step(state, batch or make_batch(), trainer(mesh).asked(0))
    return state, StepReport(*np.asarray(told).tolist())


def run(steps, mesh=ONE_DEVICE):
    """The state after each step, and before the first, on the host."""
    state, states = trainer(mesh).new_state(), []
    for _ in range(steps):
        states.append(jax.device_get(state))
        state, _ = step(state, mesh)
    return [*states, jax.device_get(state)]


@pytest.fixture(scope="module")
def states():
    return run(8)


def assert_same_bits(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_two_runs_are_equal_to_the_bit(states):
    assert_same_bits(states[4], run(4)[-1])


def test_the_loss_falls(states):
    losses = [
        float(trainer(ONE_DEVICE).eval_step(state.params, make_batch()).log_loss) for state in (states[0], states[-1])
    ]
    assert losses[1] < 0.95 * losses[0]


def test_progress_sums_and_starts_again(states):
    progress = states[3].progress
    assert (int(states[3].step), int(progress.steps)) == (3, 3)
    assert float(progress.sums.tokens) == 3 * 39  # 39 target tokens in the batch
    assert progress.gradient_norm > 0
    state = trainer(ONE_DEVICE).reset_progress(step(put(states[3]))[0])
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.progress))
    assert_same_bits(state.params, states[4].params)


def put(state):
    return jax.device_put(state, trainer(ONE_DEVICE).state_sharding)


def test_the_state_is_donated():
    state = trainer(ONE_DEVICE).new_state()
    step(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_dropout_depends_on_the_step_and_on_nothing_that_ran_before(states):
    def loss_of_step(number):
        state, _ = step(put(replace(states[0], step=np.int32(number))))
        return float(state.progress.sums.loss)

    losses = [loss_of_step(number) for number in (0, 1, 0)]
    assert losses[0] == losses[2] == float(states[1].progress.sums.loss)
    assert losses[0] != losses[1]


def test_another_key_is_another_dropout():
    params = init_parameters(MODEL, jax.random.key(0))

    @jax.jit
    def loss(key):
        return batch_loss(Transformer(MODEL), params, jax.tree.map(jnp.asarray, make_batch()), dropout_key=key).loss

    assert float(loss(jax.random.key(3))) != float(loss(jax.random.key(4)))


def test_the_moving_average(states):
    for step, decay in [(0, 1 / 10), (1, 2 / 11), (7, 8 / 17)]:  # (1 + step) / (10 + step) below 0.9
        expected = jax.tree.map(
            lambda a, p, d=decay: d * a + (1 - d) * p, states[step].average, states[step + 1].params
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), states[step + 1].average, expected)
    assert states[1].evaluated is states[1].average
    late = moving_average({"x": jnp.float32(1)}, {"x": jnp.float32(2)}, jnp.int32(10_000), 0.9)
    np.testing.assert_allclose(late["x"], 1.1, rtol=1e-6)


def test_accumulation_is_the_whole_batch():
    model = Transformer(replace(MODEL, dropout=0.0))
    params = init_parameters(model.config, jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, make_batch())

    def compute(accumulation):
        config = TrainingConfig(steps=1, accumulation=accumulation)
        return jax.jit(lambda: gradients(model, params, batch, jax.random.key(0), config))()

    (whole, sums), (parts, parts_sums) = compute(1), compute(3)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), parts, whole)
    np.testing.assert_allclose(jax.tree.leaves(parts_sums), jax.tree.leaves(sums), rtol=1e-6)
    counts = make_batch().target.weights.reshape(4, 3, 7).sum((0, 2))
    assert counts.tolist() == [28, 5, 6]  # the mean of the parts' means would be another number


def test_a_batch_without_targets_says_what_is_missing():
    batch = replace(make_batch(), target=replace(make_batch().target, targets=None))
    with pytest.raises(ValueError, match="has targets and weights on its target side"):
        batch_loss(Transformer(MODEL), {}, batch)


def weighted(value):
    """The batch with this weight on one target token."""
    batch = make_batch()
    weights = batch.target.weights.copy()
    weights[4, 0] = value
    return replace(batch, target=replace(batch.target, weights=weights))


def unlikely(state):
    """The batch with the least likely token as every target."""
    batch = make_batch()
    model = Transformer(replace(MODEL, dropout=0.0))
    source, target = (jnp.asarray(side.tokens) for side in (batch.source, batch.target))
    logits, _ = jax.jit(lambda params: model.apply({"params": params}, source, target))(state.params)
    targets = np.asarray(logits.argmin(-1), np.int32)
    return replace(batch, target=replace(batch.target, targets=targets))


def weights_of(state):
    return jax.device_get((state.params, state.optimizer, state.average))


class TestBadSteps:
    def test_a_good_step_says_so(self, states):
        state, told = step(put(states[3]))
        assert_same_bits(jax.device_get(state), states[4])
        assert (told.good, told.tripped, told.asked) == (1, 0, 0)
        np.testing.assert_allclose(
            told.loss, states[4].progress.sums.loss / 39 - states[3].progress.sums.loss / 39, 1e-4
        )

    @pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
    def test_a_loss_or_gradient_that_is_not_finite_changes_no_weight_and_no_moment(self, states, value):
        state, told = step(put(states[3]), batch=weighted(value))
        assert told.good == 0
        assert not np.isfinite([told.loss, told.gradient_norm]).all()
        assert_same_bits(weights_of(state), weights_of(states[3]))
        after = jax.device_get(state)
        assert (int(after.step), int(after.health.skipped), int(after.health.in_a_row)) == (4, 1, 1)
        assert (int(after.progress.steps), int(after.progress.skipped)) == (3, 1)
        assert_same_bits(after.progress.sums, states[3].progress.sums)
        assert after.health.mean_loss == states[3].health.mean_loss

    def test_after_too_many_in_a_row_nothing_changes_any_more(self, states):
        state, reports = put(states[3]), []
        for batch in [weighted(np.nan)] * 2 + [None] + [weighted(np.nan)] * 3 + [None]:
            before = weights_of(state)
            state, told = step(state, batch=batch)
            reports.append((told.good, told.tripped))
        assert reports == [(0, 0), (0, 0), (1, 0), (0, 0), (0, 0), (0, TOO_MANY_SKIPPED), (0, TOO_MANY_SKIPPED)]
        assert_same_bits(weights_of(state), before)

    def test_a_spike_trips_once_the_mean_has_settled(self, states):
        state, reports = put(states[0]), []
        _, told = step(put(states[3]), batch=unlikely(states[3]))
        assert told.loss > states[3].health.mean_loss + 0.5
        assert (told.good, told.tripped) == (1, 0)
        for _ in range(SETTLED):
            state, told = step(state)
            reports.append((told.good, told.tripped))
        assert reports == SETTLED * [(1, 0)]
        kept, health, batch = weights_of(state), jax.device_get(state.health), unlikely(state)
        state, told = step(state, batch=batch)
        assert told.loss > health.mean_loss + 0.5
        assert (told.good, told.tripped) == (0, SPIKE)
        assert_same_bits(weights_of(state), kept)

    def test_the_mean_is_that_of_the_last_losses(self, states):
        losses = np.diff([float(state.progress.sums.loss) / 39 for state in states[:4]])
        mean = losses[0] * 0.9  # shares 9/10, 9/11, 9/12
        mean += 9 / 11 * (losses[1] - mean)
        mean += 9 / 12 * (losses[2] - mean)
        np.testing.assert_allclose(states[3].health.mean_loss, mean, rtol=1e-4)

    def test_what_any_device_is_asked_reaches_the_report(self, states):
        mesh = MeshConfig(data=2, fsdp=2, tensor=2)
        asked = trainer(mesh).asked(0)
        one = jax.make_array_from_callback(
            (8,), asked.sharding, lambda part: np.full(1, 15 if part[0].start == 5 else 0, np.int32)
        )
        _, told = trainer(mesh).train_step(trainer(mesh).new_state(), make_batch(), one)
        assert StepReport(*np.asarray(told).tolist()).asked == 15
