"""A run that goes on with other devices: the same examples, the same losses up to rounding, the same bits as loaded."""

import os
import shutil
import signal

import jax
import numpy as np
import pytest
import small_runs
from real_processes import fingerprints

from transformer_jax import runs, sharding
from transformer_jax.config import BatchConfig, MeshConfig, ModelConfig
from transformer_jax.initialisation import abstract_parameters
from transformer_jax.training import loop, metrics
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.observer import Observer

EIGHT = MeshConfig(data=2, fsdp=2, tensor=2)
HALF, WHOLE = 20, 40


def experiment(words, mesh):
    return small_runs.experiment(
        words,
        WHOLE,
        batch=BatchConfig(rows=8, source_length=7, target_length=11),
        model=ModelConfig(
            encoder_layers=1, decoder_layers=1, width=8, num_heads=4, ffn_width=12, vocab_size=12, dropout=0.2
        ),
        mesh=mesh,
    )


@pytest.fixture(scope="module")
def eight(words, trainers, tmp_path_factory):
    """A run on eight devices: stopped half way, and what it became there."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Trainer", trainers)
        assert loop.train(experiment(words, EIGHT), folder / "half", until=HALF) == 0
        shutil.copytree(folder / "half", folder / "whole")
        assert loop.train(experiment(words, EIGHT), folder / "whole") == 0
    return folder


MESHES = [
    (4, MeshConfig(data=2, fsdp=2)),
    pytest.param(1, MeshConfig(data=1), marks=pytest.mark.slow),
    pytest.param(2, MeshConfig(data=2), marks=pytest.mark.slow),
    pytest.param(8, MeshConfig(data=1, fsdp=8), marks=pytest.mark.slow),
    pytest.param(8, MeshConfig(data=8), marks=pytest.mark.slow),
    pytest.param(8, MeshConfig(data=2, tensor=4), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("count", "mesh"), MESHES, ids=str)
def test_the_run_goes_on_with_other_devices(eight, words, devices, tmp_path, count, mesh):
    devices(count)
    shutil.copytree(eight / "half", tmp_path / "run")
    assert loop.train(experiment(words, mesh), tmp_path / "run") == 0
    unbroken, moved = (metrics.read(path / "metrics.jsonl") for path in (eight / "whole", tmp_path / "run"))
    assert [line["step"] for line in moved] == list(range(1, WHOLE + 1))
    for ours, theirs in zip(moved, unbroken, strict=True):
        assert ours["train/examples"] == theirs["train/examples"]
        np.testing.assert_allclose(ours["train/loss"], theirs["train/loss"], rtol=1e-5)
    sessions = runs.read_sessions(runs.RunFolder(tmp_path / "run"))
    assert [len(session["devices"]) for session in sessions] == [8, count]


@pytest.mark.parametrize(
    ("count", "mesh"),
    [(1, MeshConfig(data=1)), (2, MeshConfig(fsdp=2, data=1)), (4, MeshConfig(tensor=4, data=1)), (8, EIGHT)],
    ids=str,
)
def test_what_is_loaded_has_the_same_bits_on_any_mesh(eight, words, count, mesh):
    made = sharding.make_mesh(mesh, jax.devices()[:count])
    wanted = {"parameters": abstract_parameters(experiment(words, mesh).model, made)}
    first = sharding.data_mesh()
    alone = {"parameters": abstract_parameters(experiment(words, mesh).model, first)}
    with Checkpoints(eight / "half" / "checkpoints") as checkpoints:
        here, there = (checkpoints.restore(items, [HALF]).items for items in (wanted, alone))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), here, there)
    table = here["parameters"]["embedding"]["table"]
    assert len({shard.device for shard in table.addressable_shards}) == count


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ((Observer, "advance"), signal.SIGINT),
        pytest.param((Checkpoints, "save"), signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param((Observer, "saved"), signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_eight_devices_and_they_go_on_to_the_same_bits(
    eight, words, devices, tmp_path, monkeypatch, where, number
):
    devices(8)
    holder, name = where
    method = getattr(holder, name)

    def and_signal(self, step, *args, **kwargs):
        result = method(self, step, *args, **kwargs)
        if step == 8:
            os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(holder, name, and_signal)
    assert loop.train(experiment(words, EIGHT), tmp_path / "run") == 128 + number
    monkeypatch.setattr(holder, name, method)
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert 8 <= checkpoints.steps()[-1] < WHOLE
    assert loop.train(experiment(words, EIGHT), tmp_path / "run") == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (eight / "whole" / "metrics.jsonl").read_bytes()
    assert fingerprints(tmp_path / "run") == fingerprints(eight / "whole")
