"""Checkpoints of every format that there was still open, on any mesh, and give what they gave."""

import importlib.util
import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from small_checkpoints import flip

from transformer_jax.config import MeshConfig
from transformer_jax.runs import RunFolder, open_run
from transformer_jax.sharding import data_mesh, make_mesh
from transformer_jax.training import loop
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.manifest import FORMAT_VERSION
from transformer_jax.training.position import Position
from transformer_jax.training.step import Trainer
from transformer_jax.translation import read_parameters

FOLDER = Path(__file__).parents[1] / "golden"
FORMATS = range(1, FORMAT_VERSION + 1)
FEW_MESHES = [(1, 1, 1), (1, 4, 2)]  # data, fsdp, tensor; saved on (2, 2, 2)
MORE_MESHES = [(1, 1, 2), (2, 1, 1), (1, 2, 1), (2, 2, 1), (1, 1, 4), (2, 2, 2), (1, 8, 1), (2, 1, 4), (8, 1, 1)]
CASES = [
    *((FORMAT_VERSION, shape) for shape in FEW_MESHES),
    *((number, (1, 2, 2)) for number in range(1, FORMAT_VERSION)),
    *(pytest.param(number, shape, marks=pytest.mark.slow) for number in FORMATS for shape in MORE_MESHES),
]

pytestmark = [
    pytest.mark.usefixtures("collected"),
    # Orbax abandons its other reads of a damaged checkpoint in the middle.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_specification = importlib.util.spec_from_file_location("make_golden", FOLDER / "make_golden.py")
make_golden = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(make_golden)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Format -> folder of its run, and what is expected of it."""
    runs = {}
    for number in FORMATS:
        folder = tmp_path_factory.mktemp("golden") / f"format_{number}"
        with tarfile.open(FOLDER / f"format_{number}.tar.gz") as packed:
            packed.extractall(folder, filter="data")
        runs[number] = folder, json.loads((folder / "expected.json").read_text())
    return runs


def read(folder, shape):
    """The parameters, on a mesh of this shape."""
    mesh = make_mesh(
        MeshConfig(**dict(zip(("data", "fsdp", "tensor"), shape, strict=True))), jax.devices()[: np.prod(shape)]
    )
    params, step = read_parameters(RunFolder(folder), open_run(folder), mesh)
    assert step == 3
    assert len(jax.tree.leaves(params)[0].devices()) == np.prod(shape)
    return params


@pytest.mark.parametrize("number", FORMATS)
def test_the_parameters_are_the_same_bytes_on_one_two_four_and_eight_devices(golden, number):
    folder, expected = golden[number]
    for shape in [(1, 1, 1), (1, 1, 2), (1, 4, 1), (2, 2, 2)]:
        assert make_golden.digests_of(read(folder, shape)) == expected["parameters"]


@pytest.mark.parametrize(("number", "shape"), CASES)
def test_the_parameters_are_the_same_bytes_and_the_logits_the_same(golden, number, shape):
    folder, expected = golden[number]
    params = read(folder, shape)
    assert make_golden.digests_of(params) == expected["parameters"]
    logits = make_golden.logits_of(open_run(folder).model, params)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", FORMATS)
def test_every_item_is_intact(golden, number):
    folder, _ = golden[number]
    with Checkpoints(folder / "checkpoints") as checkpoints:
        (verdict,) = checkpoints.verify()
    assert (verdict.step, verdict.damage, verdict.has_digests) == (3, None, number > 1)


def test_format_1_without_digests_finds_damage_that_matters(golden, tmp_path):
    for number, item in enumerate(("parameters", "optimizer")):
        folder = shutil.copytree(golden[1][0] / "checkpoints", tmp_path / str(number))
        (file,) = (folder / "3" / item / "d").iterdir()
        flip(file)
        with Checkpoints(folder) as checkpoints:
            (verdict,) = checkpoints.verify()
        assert verdict.damage is not None


def test_format_1_without_digests_is_set_aside_too(golden, tmp_path):
    folder = shutil.copytree(golden[1][0] / "checkpoints", tmp_path / "checkpoints")
    shutil.copytree(folder / "3", folder / "5")
    file = folder / "5" / "position" / "metadata"
    file.write_text(file.read_text().replace("3", "4"))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore({}, set_aside=True).step == 3
        assert (checkpoints.steps(), checkpoints.aside()) == ([3], ["damaged-5"])


def test_a_run_of_the_current_format_can_be_gone_on_with(golden):
    """All that a training state is made of comes back: compiles nothing."""
    folder, _ = golden[max(FORMATS)]
    experiment = open_run(folder)
    trainer = Trainer(experiment, data_mesh(), total_steps=3)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        restored = checkpoints.restore(loop.items_of(trainer.abstract_state))
    assert Position(**restored.position).step == restored.step == 3
    assert int(restored.items["health"].good) == 3
