"""Checkpoints come back to the bit, on any devices; which of them stay."""

import threading

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from small_checkpoints import KEEP, abstract, items_of, new_threads, same_bits, save, truncate

from transformer_jax.config import MeshConfig
from transformer_jax.errors import InputError
from transformer_jax.sharding import make_mesh
from transformer_jax.training import manifest
from transformer_jax.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(folder, 1, 2)
    return folder


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path, 3)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(abstract(items_of(0)))
    assert (restored.step, restored.position) == (3, {"epoch": 3, "name": "step 3"})
    assert same_bits(restored.items, items_of(3))
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_one_item_and_one_step_by_themselves(tmp_path):
    save(tmp_path, 3, 5)
    with Checkpoints(tmp_path) as checkpoints:
        wanted = abstract({"parameters": items_of(0)["parameters"]})
        restored = checkpoints.restore(wanted, [3])
    assert set(restored.items) == {"parameters"}
    assert same_bits(restored.items["parameters"], items_of(3)["parameters"])


def test_nothing_saved_is_nothing_restored(tmp_path):
    with Checkpoints(tmp_path / "new", score=KEEP["score"]) as checkpoints:
        assert checkpoints.restore(abstract(items_of(0))) is None
        assert checkpoints.steps() == []
        assert checkpoints.best_step() is None
        assert checkpoints.aside() == []
    assert not (tmp_path / "new").exists()


def test_arrays_may_change_as_soon_as_save_returns(tmp_path):
    donate = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    items = items_of(3)
    with Checkpoints(tmp_path) as checkpoints:
        held_up = checkpoints.save(3, items, {})
        donate(items)
        checkpoints.wait()
        assert same_bits(checkpoints.restore(abstract(items_of(0))).items, items_of(3))
    assert held_up > 0


def test_no_thread_stays(tmp_path):
    save(tmp_path, 1)
    before = set(threading.enumerate())
    save(tmp_path, 3, 5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(abstract(items_of(0)))
    assert not new_threads(before)


def test_a_step_is_saved_once(tmp_path):
    save(tmp_path, 3)
    with pytest.raises(InputError, match="3: there is a checkpoint of this step already"):
        save(tmp_path, 3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (1, 1, 4), (2, 4, 1)])
def test_eight_devices_can_be_read_on_fewer_and_under_another_mesh(tmp_path, shape):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    saved = jax.device_put(
        jax.random.normal(jax.random.key(0), (16, 8)), NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, {"parameters": {"kernel": saved}}, {})
    count = shape[0] * shape[1] * shape[2]
    other = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), shape, strict=True))), jax.devices()[:count])
    place = NamedSharding(other, PartitionSpec("tensor", "fsdp"))
    wanted = {"parameters": {"kernel": jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=place)}}
    with Checkpoints(tmp_path) as checkpoints:
        read = checkpoints.restore(wanted).items["parameters"]["kernel"]
    assert read.sharding == place
    assert same_bits(read, saved)


class TestWhatStays:
    def test_the_newest_and_the_best_and_metrics_outlive_the_process(self, tmp_path):
        metrics = {1: {"loss": 5.0}, 2: {"loss": 1.0}, 3: {"loss": 3.0}, 4: {"loss": 4.0}, 6: {"loss": 9.0}}
        save(tmp_path, 1, 2, 3, 4, 5, 6, metrics=metrics, **KEEP)
        with Checkpoints(tmp_path, **KEEP) as checkpoints:
            assert checkpoints.steps() == [2, 5, 6]  # 6 is the worst, and stays
            assert checkpoints.best_step() == 2
            assert [checkpoints.metrics(step) for step in (2, 5, 6)] == [{"loss": 1.0}, None, {"loss": 9.0}]
        save(tmp_path, 7, metrics={7: {"loss": 0.5}}, **KEEP)
        with Checkpoints(tmp_path, **KEEP) as checkpoints:
            assert (checkpoints.steps(), checkpoints.best_step()) == ([6, 7], 7)

    def test_of_equals_the_newest_is_the_best(self, tmp_path):
        save(tmp_path, 1, 2, 3, metrics={1: {"loss": 2.0}, 2: {"loss": 2.0}}, score=KEEP["score"])
        with Checkpoints(tmp_path, score=KEEP["score"]) as checkpoints:
            assert checkpoints.best_step() == 2
            assert checkpoints.restore(abstract(items_of(0)), best_first=True).step == 2

    def test_what_is_off_the_schedule_takes_no_place_of_what_is_on_it(self, tmp_path):
        options = {"newest": 2, "scheduled": lambda step: step % 10 == 0}
        save(tmp_path, 10, 20, 23, 27, **options)
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.steps() == [10, 20, 27]
        save(tmp_path, 30, **options)
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.steps() == [20, 30]

    def test_one_that_is_not_complete_does_not_count_and_is_not_removed(self, tmp_path):
        save(tmp_path, 1, 2)
        truncate(max((tmp_path / "2").rglob("*"), key=lambda path: path.stat().st_size * path.is_file()))
        save(tmp_path, 3, newest=2)
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.steps() == [1, 2, 3]
            assert [verdict.step for verdict in checkpoints.verify() if verdict.damage is None] == [1, 3]


def test_what_dead_processes_left_is_ignored_and_removed_by_the_next_save(tmp_path):
    save(tmp_path, 3)
    for name in ("saving-5", "saving-5.orbax-checkpoint-tmp", "deleting-2", "7.orbax-checkpoint-tmp"):
        (tmp_path / name / "parameters").mkdir(parents=True)
    (tmp_path / "damaged-4").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(abstract(items_of(0)), set_aside=True).step == 3
        assert len(list(tmp_path.iterdir())) == 6
        checkpoints.save(5, items_of(5), {})
        checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "5", "damaged-4"]


class TestAnotherModel:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"half": jnp.zeros(6, jnp.bfloat16)}, r"half.* is \['bfloat16', \[5\]\], but .* \['bfloat16', \[6\]\]"),
            ({"half": jnp.zeros(5)}, r"half.* is \['bfloat16', \[5\]\], but .* \['float32', \[5\]\]"),
            ({"bias": jnp.zeros(5)}, r"bias.* is None, but .* \['float32', \[5\]\]"),
        ],
    )
    def test_the_leaf_that_differs_is_named_and_nothing_is_set_aside(self, saved, change, message):
        items = items_of(0)
        with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match=message) as error:
            checkpoints.restore(abstract({**items, "parameters": {**items["parameters"], **change}}), set_aside=True)
        assert "\n" not in str(error.value)
        assert sorted(path.name for path in saved.iterdir()) == ["1", "2"]

    def test_a_leaf_too_many_in_the_checkpoint(self, saved):
        items = items_of(0)
        del items["parameters"]["half"]
        with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match=r"half.* but the experiment has None"):
            checkpoints.restore(abstract(items))

    def test_an_item_that_is_not_there(self, saved):
        with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match="holds no average, only"):
            checkpoints.restore(abstract({"average": items_of(0)["parameters"]}))

    def test_a_later_format_is_no_damage(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "FORMAT_VERSION", 3)
            save(tmp_path, 1)
        with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError, match=r"1: format 3; .* reads up to 2"):
            checkpoints.restore(abstract(items_of(0)), set_aside=True)
        assert (tmp_path / "1").exists()
