"""Schedules at their corners, and updates by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.config import Adam, AdamW, ModelConfig, PaperSchedule, Schedule
from transformer_jax.errors import InputError
from transformer_jax.initialisation import init_parameters
from transformer_jax.training.optimizer import learning_rate, make_optimizer


def rates(config, steps, *, width=512, total_steps=1000):
    """The learning rate of each step, counted from 1 as the paper does."""
    schedule = learning_rate(config, width, total_steps)
    return [float(schedule(step - 1)) for step in steps]


def test_the_paper():
    # 512^-0.5 = 0.0441942, 4000^-1.5 = 3.95285e-6, 4000^-0.5 = 0.0158114
    expected = [1.746928e-7, 6.98771e-4, 3.493856e-4]
    assert rates(PaperSchedule(), [1, 4000, 16_000]) == pytest.approx(expected, rel=1e-5)
    assert rates(PaperSchedule(scale=2.0), [4000], width=128) == pytest.approx([4 * 6.98771e-4], rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "halfway", "end"),
    [("linear", 0.55, 0.1), ("cosine", 0.55, 0.1), ("inverse_sqrt", (1 / 5.5) ** 0.5, 0.1**0.5), ("constant", 1, 1)],
)
def test_schedules_at_start_middle_of_warmup_peak_halfway_and_end(kind, halfway, end):
    final = 0.1 if kind in ("linear", "cosine") else 0.0
    config = Schedule(kind=kind, peak=1.0, warmup_steps=100, final=final)
    assert rates(config, [1, 50, 100, 550, 1000]) == pytest.approx([0.01, 0.5, 1, halfway, end], rel=1e-5)


def test_cosine_a_quarter_down():
    config = Schedule(kind="cosine", peak=2.0, warmup_steps=200)
    assert rates(config, [400]) == pytest.approx([1 + np.cos(np.pi / 4)], rel=1e-5)


def test_without_warmup_it_starts_near_the_peak():
    assert rates(Schedule(kind="constant", peak=3.0, warmup_steps=0), [1, 7]) == [3, 3]
    assert rates(Schedule(kind="linear", peak=1.0, warmup_steps=0), [1, 500]) == pytest.approx([0.999, 0.5], rel=1e-5)


PARAMS = {"kernel": jnp.array([[2.0, -4.0]]), "bias": jnp.array([3.0]), "norm": {"scale": jnp.array([1.0])}}
GRADIENTS = {"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([-4.0]), "norm": {"scale": jnp.array([0.0])}}


def first_updates(config, gradients=GRADIENTS, **options):
    optimizer = make_optimizer(config, lambda count: 0.5, **options)
    return optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)[0]


def test_the_first_update_of_adam_is_the_sign_times_the_rate():
    updates = first_updates(Adam())
    np.testing.assert_allclose(updates["kernel"], [[-0.5, 0]], rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], [0.5], rtol=1e-5)


def test_the_second_update_of_adam():
    optimizer = make_optimizer(Adam(beta1=0.5, beta2=0.75), lambda count: 1.0)
    params = jnp.array([0.0])
    _, state = optimizer.update(jnp.array([1.0]), optimizer.init(params), params)
    update, _ = optimizer.update(jnp.array([2.0]), state, params)
    # m = 0.5 * 0.5 + 0.5 * 2, v = 0.75 * 0.25 + 0.25 * 4; corrected by 1 - 0.25 and 1 - 0.5625
    np.testing.assert_allclose(update, -(1.25 / 0.75) / (1.1875 / 0.4375) ** 0.5, rtol=1e-5)


def test_adamw_decays_matrices_and_nothing_else():
    updates, plain = first_updates(AdamW(weight_decay=0.1)), first_updates(Adam())
    np.testing.assert_allclose(updates["kernel"] - plain["kernel"], -0.5 * 0.1 * PARAMS["kernel"], rtol=1e-5)
    np.testing.assert_array_equal(updates["bias"], plain["bias"])
    np.testing.assert_array_equal(updates["norm"]["scale"], 0.0)


def test_clipping_is_by_the_norm_over_all_gradients():
    epsilon = 1e3  # far above the gradients, it makes the first update of Adam -rate * gradient / epsilon
    free, clipped, untouched = (
        first_updates(Adam(epsilon=epsilon), clip_norm=norm)  # the norm of (3, 4) is 5
        for norm in (None, 2.5, 6.0)
    )
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(clipped[name], free[name] / 2, rtol=1e-2)
        np.testing.assert_array_equal(untouched[name], free[name])


def test_inverse_sqrt_without_warmup_starts_at_the_peak():
    schedule = learning_rate(Schedule(kind="inverse_sqrt", peak=0.5, warmup_steps=0), width=8, total_steps=100)
    assert float(schedule(0)) == pytest.approx(0.5)
    assert float(schedule(3)) == pytest.approx(0.25)  # step 4: half


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_warmup_as_long_as_the_run_leaves_no_decay(kind):
    with pytest.raises(InputError, match=r"warmup_steps=20 leaves nothing of the 20 steps"):
        learning_rate(Schedule(kind=kind, warmup_steps=20), width=8, total_steps=20)


def test_adamw_decays_the_matrices_of_a_model_and_nothing_else():
    # A gradient of zero leaves Adam where it is, so what moves is decayed.
    config = ModelConfig(encoder_layers=1, decoder_layers=1, width=8, num_heads=2, ffn_width=12, vocab_size=7)
    params = jax.tree.map(jnp.ones_like, init_parameters(config, jax.random.key(0)))
    optimizer = make_optimizer(AdamW(weight_decay=0.25), lambda count: 0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        expected = -0.125 if path[-1].key in ("kernel", "table") else 0.0
        np.testing.assert_allclose(update, expected, err_msg=jax.tree_util.keystr(path))
