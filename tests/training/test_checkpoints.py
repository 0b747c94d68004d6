"""Checkpoints come back to the bit or not at all."""

import gc
import logging
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from transformer_jax.config import MeshConfig
from transformer_jax.errors import InputError
from transformer_jax.sharding import make_mesh
from transformer_jax.training.checkpoints import Checkpoints, describe, fingerprint

# Orbax abandons the other reads of a damaged checkpoint in the middle.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    """What a test abandons is collected before the next test, where its warning would count."""
    yield
    gc.collect()


def items_of(step):
    """Two items of several dtypes; special values included."""
    random = np.random.default_rng(step)
    special = [np.nan, -0.0, np.inf, 1e-45]
    return {
        "parameters": {
            "kernel": jnp.asarray(random.normal(size=(7, 11)), jnp.float32).at[0, :4].set(jnp.asarray(special)),
            "half": jnp.asarray(random.normal(size=5), jnp.bfloat16),
        },
        "optimizer": {"count": jnp.int32(step)},
    }


def abstract(items):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), items)


def same_bits(left, right):
    def equal(a, b):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(equal, left, right)
    return True


def save(folder, *steps, metrics=None, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            measured = None if metrics is None else metrics.get(step)
            checkpoints.save(step, items_of(step), {"epoch": step, "name": f"step {step}"}, measured)
        checkpoints.wait()


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path, 3)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(abstract(items_of(0)))
    assert (restored.step, restored.position) == (3, {"epoch": 3, "name": "step 3"})
    assert same_bits(restored.items, items_of(3))


def test_one_item_and_one_step_by_themselves(tmp_path):
    save(tmp_path, 3, 5)
    with Checkpoints(tmp_path) as checkpoints:
        wanted = abstract({"parameters": items_of(0)["parameters"]})
        restored = checkpoints.restore(wanted, [3])
    assert set(restored.items) == {"parameters"}
    assert same_bits(restored.items["parameters"], items_of(3)["parameters"])


def test_nothing_saved_is_nothing_restored(tmp_path):
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.restore(abstract(items_of(0))) is None
        assert checkpoints.steps() == []
        assert checkpoints.best_step() is None


def test_the_newest_and_the_best_stay_and_metrics_outlive_the_process(tmp_path):
    metrics = {1: {"loss": 5.0}, 2: {"loss": 1.0}, 3: {"loss": 3.0}, 4: {"loss": 4.0}, 6: {"loss": 9.0}}
    options = {"newest": 2, "best": 1, "score": lambda measured: -measured["loss"]}
    save(tmp_path, 1, 2, 3, 4, 5, 6, metrics=metrics, **options)
    with Checkpoints(tmp_path, **options) as checkpoints:
        assert checkpoints.steps() == [2, 5, 6]  # 6 is the worst, and stays
        assert checkpoints.best_step() == 2
        assert [checkpoints.metrics(step) for step in (2, 5, 6)] == [{"loss": 1.0}, None, {"loss": 9.0}]
    save(tmp_path, 7, metrics={7: {"loss": 0.5}}, **options)
    with Checkpoints(tmp_path, **options) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([6, 7], 7)


def delete(file):
    file.unlink()


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


KEEP = {"newest": 2, "best": 1, "score": lambda measured: -measured["loss"]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(folder, 1, 2, metrics={1: {"loss": 2.0}, 2: {"loss": 1.0}}, **KEEP)
    return folder


@pytest.mark.parametrize("damage", [delete, truncate, flip])
def test_any_damaged_file_leads_to_the_checkpoint_before(saved, tmp_path, caplog, damage):
    files = sorted(file.relative_to(saved) for file in (saved / "2").rglob("*") if file.is_file())
    assert len(files) > 5
    fell_back = set()
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        if (folder / file).stat().st_size == 0 and damage is not delete:
            continue
        damage(folder / file)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="transformer_jax"), Checkpoints(folder, **KEEP) as checkpoints:
            restored = checkpoints.restore(abstract(items_of(0)))
        assert same_bits(restored.items, items_of(restored.step)), file
        assert restored.position["epoch"] == restored.step, file
        if restored.step == 1:
            fell_back.add(file)
            assert any("checkpoint 2 is damaged and skipped" in message for message in caplog.messages), file
    assert any("parameters" in file.parts for file in fell_back)
    assert any("manifest" in file.parts for file in fell_back)


def test_broken_metrics_cost_the_metrics_alone(saved, tmp_path, caplog):
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    (folder / "2" / "metrics" / "metrics").write_text('{"loss": ')
    with caplog.at_level(logging.WARNING, logger="transformer_jax"), Checkpoints(folder, **KEEP) as checkpoints:
        assert (checkpoints.metrics(1), checkpoints.metrics(2), checkpoints.best_step()) == ({"loss": 2.0}, None, 1)
        assert checkpoints.restore(abstract(items_of(0))).step == 2
    assert any("2/metrics/metrics is damaged and removed" in message for message in caplog.messages)


def test_every_bit_of_the_array_files_counts(saved, tmp_path):
    arrays = max((saved / "2" / "parameters").rglob("*"), key=lambda file: file.stat().st_size * file.is_file())
    for place in range(0, arrays.stat().st_size, arrays.stat().st_size // 7):
        folder = tmp_path / str(place)
        shutil.copytree(saved, folder)
        file = folder / arrays.relative_to(saved)
        data = bytearray(file.read_bytes())
        data[place] ^= 1 << (place % 8)
        file.write_bytes(data)
        with Checkpoints(folder) as checkpoints:
            restored = checkpoints.restore(abstract(items_of(0)))
        assert same_bits(restored.items, items_of(restored.step)), place


def test_all_damaged_is_one_line(saved, tmp_path):
    folder = tmp_path / "all"
    shutil.copytree(saved, folder)
    for step in ("1", "2"):
        for file in (folder / step / "parameters").rglob("*"):
            if file.is_file():
                file.unlink()
    with Checkpoints(folder) as checkpoints, pytest.raises(InputError, match=r"no intact checkpoint among .*2, 1"):
        checkpoints.restore(abstract(items_of(0)))


class TestAnotherModel:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"half": jnp.zeros(6, jnp.bfloat16)}, r"half.* is \['bfloat16', \[5\]\], but .* \['bfloat16', \[6\]\]"),
            ({"half": jnp.zeros(5)}, r"half.* is \['bfloat16', \[5\]\], but .* \['float32', \[5\]\]"),
            ({"bias": jnp.zeros(5)}, r"bias.* is None, but .* \['float32', \[5\]\]"),
        ],
    )
    def test_the_leaf_that_differs_is_named(self, saved, change, message):
        items = items_of(0)
        with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match=message) as error:
            checkpoints.restore(abstract({**items, "parameters": {**items["parameters"], **change}}))
        assert "\n" not in str(error.value)

    def test_a_leaf_too_many_in_the_checkpoint(self, saved):
        items = items_of(0)
        del items["parameters"]["half"]
        with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match=r"half.* but the experiment has None"):
            checkpoints.restore(abstract(items))

    def test_an_item_that_is_not_there(self, saved):
        with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match="holds no average, only"):
            checkpoints.restore(abstract({"average": items_of(0)["parameters"]}))


class TestFingerprint:
    def test_every_bit_counts(self):
        x = np.random.default_rng(0).normal(size=3).astype(np.float32)
        prints = {bytes(np.asarray(fingerprint(jnp.asarray(x))))}
        for bit in range(96):
            flipped = x.copy()
            flipped.view(np.uint32)[bit // 32] ^= np.uint32(1 << bit % 32)
            prints.add(bytes(np.asarray(fingerprint(jnp.asarray(flipped)))))
        assert len(prints) == 97

    def test_every_exchange_counts(self):
        x = jnp.arange(7.0)
        prints = {bytes(np.asarray(fingerprint(x)))}
        exchanged = [x.at[i].set(x[j]).at[j].set(x[i]) for i in range(7) for j in range(i)]
        prints |= {bytes(np.asarray(fingerprint(y))) for y in exchanged}
        assert len(prints) == 22

    @pytest.mark.parametrize("dtype", ["bfloat16", "int32", "uint8", "float32"])
    def test_of_every_dtype(self, dtype):
        x = jnp.arange(5).astype(dtype)
        assert (fingerprint(x) != fingerprint(x.at[3].set(7))).any()

    def test_it_does_not_depend_on_the_mesh(self):
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        x = jax.random.normal(jax.random.key(0), (8, 6))
        split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "tensor")))
        assert not split.is_fully_replicated
        assert describe({"a": {"x": x}}) == describe({"a": {"x": split}})


def test_a_full_disk_is_one_line_and_what_was_there_is_intact(tmp_path):
    save(tmp_path, 1)
    script = """
        import resource, signal, sys
        from pathlib import Path
        import jax.numpy as jnp
        from transformer_jax.errors import InputError
        from transformer_jax.training.checkpoints import Checkpoints

        items = {"parameters": {"kernel": jnp.arange(2.0**18)}, "optimizer": {"count": jnp.int32(2)}}
        checkpoints = Checkpoints(Path(sys.argv[1]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        try:
            checkpoints.save(2, items, {})
            checkpoints.wait()
        except InputError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = process.stdout.splitlines()
    assert len(lines) == 1, process.stdout + process.stderr
    assert "could not be saved" in lines[0]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
        assert same_bits(checkpoints.restore(abstract(items_of(0))).items, items_of(1))


def test_what_comes_after_the_checkpoint_gone_on_from_is_discarded_and_saved_again(tmp_path):
    save(tmp_path, 3, 5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.discard_after(3)
        assert checkpoints.steps() == [3]
    save(tmp_path, 5)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(abstract(items_of(0))).step == 5


def test_a_changed_position_is_damage(tmp_path):
    save(tmp_path, 3, 5)
    file = next(path for path in (tmp_path / "5" / "position").rglob("*") if path.is_file())
    file.write_text(file.read_text().replace("5", "6"))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(abstract(items_of(0))).step == 3
