"""Whoever reads while a run saves and prunes gets an intact checkpoint, always."""

import itertools
import logging
import threading

import pytest
from small_checkpoints import abstract, items_of, same_bits, save

from transformer_jax.errors import InputError
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.storage import Storage

# Orbax abandons the other reads of a checkpoint that vanishes in the middle.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

OPTIONS = {"newest": 1, "best": 1, "score": lambda measured: -measured["loss"]}


def read_while_saving(folder, reads, caplog):
    """Reads this often while steps follow each other; returns the steps that were read."""
    save(folder, 0, metrics={0: {"loss": 1.0}}, **OPTIONS)
    done = threading.Event()

    def train():
        with Checkpoints(folder, **OPTIONS) as checkpoints:
            step = 0
            while not done.is_set():
                step += 1
                checkpoints.save(step, items_of(step), {}, {"loss": abs(step % 7 - 3.0)})

    trainer = threading.Thread(target=train)
    trainer.start()
    read = []
    try:
        for number in itertools.count():
            if number >= reads and len(set(read)) > 1:  # a slow disk may need more reads to see a second step
                break
            with Checkpoints(folder, **OPTIONS) as checkpoints:
                restored = checkpoints.restore(abstract(items_of(0)), best_first=number % 2 == 0)
            assert same_bits(restored.items, items_of(restored.step))
            read.append(restored.step)
    finally:
        done.set()
        trainer.join()
    assert not [record for record in caplog.records if record.name.startswith("transformer_jax")]
    return read


def test_a_reader_beside_a_run(tmp_path, caplog):
    assert len(set(read_while_saving(tmp_path, 5, caplog))) > 1


@pytest.mark.slow
def test_a_reader_beside_a_run_for_long(tmp_path, caplog):
    assert len(set(read_while_saving(tmp_path, 200, caplog))) > 20


@pytest.fixture
def vanishing(tmp_path, monkeypatch):
    """Steps 1 to 3; the newest is pruned, and step 4 saved, when the first of them is being read."""
    save(tmp_path, 1, 2, 3)
    read, times = Storage.read, []

    def read_late(self, place, wanted):
        if not times:
            (tmp_path / "3").rename(tmp_path / "deleting-3")
            save(tmp_path, 4)
        times.append(place)
        return read(self, place, wanted)

    monkeypatch.setattr(Storage, "read", read_late)
    return tmp_path


def test_one_that_is_pruned_while_it_is_read_is_no_damage(vanishing, caplog):
    with caplog.at_level(logging.WARNING, logger="transformer_jax"), Checkpoints(vanishing) as checkpoints:
        assert checkpoints.restore(abstract(items_of(0))).step == 4
    assert not [record for record in caplog.records if record.name.startswith("transformer_jax")]


def test_one_that_was_asked_for_and_is_pruned_is_one_line(vanishing):
    with Checkpoints(vanishing) as checkpoints, pytest.raises(InputError, match=r"removed while it was read: .* 3$"):
        checkpoints.restore(abstract(items_of(0)), [3])
