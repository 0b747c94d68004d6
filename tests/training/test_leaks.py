"""A long run holds no more than a short one: arrays, memory, threads, files."""

import gc
import os
import threading
from pathlib import Path

import jax
import pytest
import small_runs

from transformer_jax.config import CheckpointConfig, LoggingConfig, TrainingConfig
from transformer_jax.training import loop
from transformer_jax.training.checkpoints import Checkpoints


def resident():
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def apart():
    """Garbage is collected among what the test makes alone: all that other tests have left takes seconds each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    ("steps", "every"), [(200, 20), pytest.param(2_000, 40, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_nothing_grows_with_the_steps(words, devices, tmp_path, monkeypatch, steps, every):
    devices(1)
    long = small_runs.experiment(
        words,
        training=TrainingConfig(steps=steps),
        checkpoints=CheckpointConfig(every=every, newest=2),
        logging=LoggingConfig(every=every, tensorboard=False),
    )
    monkeypatch.setattr(loop, "report", lambda *arguments: None)  # its pictures keep files of fonts open
    loop.train(long, tmp_path / "first", until=every)  # what is made once is there
    gc.collect()
    before = {"threads": threading.active_count(), "files": open_files(), "arrays": len(jax.live_arrays())}
    held = []
    save = Checkpoints.save

    def count_and_save(self, *arguments):
        self.wait()  # the save before this one is over
        gc.collect()
        held.append((len(jax.live_arrays()), threading.active_count(), open_files(), resident()))
        return save(self, *arguments)

    monkeypatch.setattr(Checkpoints, "save", count_and_save)
    loop.train(long, tmp_path / "run")
    gc.collect()
    arrays, threads, files, memory = zip(*held[1:], strict=True)
    assert max(arrays) - min(arrays) <= 2 * 9  # batches of nine arrays, of which two are made ahead, come and go
    assert max(threads) == min(threads)
    assert max(files) == min(files)
    assert memory[-1] - memory[0] < 32 * 2**20
    after = {"threads": threading.active_count(), "files": open_files(), "arrays": len(jax.live_arrays())}
    assert after == before
