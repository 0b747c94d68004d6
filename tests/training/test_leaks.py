"""A long run holds no more than a short one: arrays, memory, threads, files."""

import gc
import os
import threading
from dataclasses import replace
from pathlib import Path

import jax
import pytest
import small_runs

from transformer_jax.config import CheckpointConfig, TrainingConfig
from transformer_jax.training import loop
from transformer_jax.training.observer import Observer


def resident():
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("steps", "every"), [(200, 20), pytest.param(2_000, 40, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_nothing_grows_with_the_steps(words, devices, tmp_path, monkeypatch, steps, every):
    devices(1)
    long = small_runs.experiment(
        words, training=TrainingConfig(steps=steps), checkpoints=CheckpointConfig(every=every, newest=2)
    )
    loop.train(replace(long, training=TrainingConfig(steps=every)), tmp_path / "first")  # what is made once is there
    gc.collect()
    before = {"threads": threading.active_count(), "files": open_files(), "arrays": len(jax.live_arrays())}
    held = []
    advance = Observer.advance

    def advance_and_count(self, step):
        advance(self, step)
        if step % every == every // 2:  # far from the saves
            gc.collect()
            held.append((len(jax.live_arrays()), threading.active_count(), open_files(), resident()))

    monkeypatch.setattr(Observer, "advance", advance_and_count)
    loop.train(long, tmp_path / "run")
    gc.collect()
    arrays, threads, files, memory = zip(*held[1:], strict=True)
    assert max(arrays) - min(arrays) <= 2 * 9  # batches of nine arrays, of which two are made ahead
    assert max(threads) - min(threads) <= 1  # a save that is still going on
    assert max(files) - min(files) <= 8  # likewise
    assert memory[-1] - memory[0] < 32 * 2**20
    after = {"threads": threading.active_count(), "files": open_files(), "arrays": len(jax.live_arrays())}
    assert after == before
