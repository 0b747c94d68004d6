"""Several tasks side by side in one run."""

import dataclasses
import json

import numpy as np
import pytest
from small_runs import WORDS, experiment

from transformer_jax.config import (
    LoggingConfig,
    MixtureConfig,
    PlainText,
    SpanCorruption,
    Task,
    TokenizerConfig,
    from_json,
    to_json,
)
from transformer_jax.errors import InputError
from transformer_jax.runs import RunFolder
from transformer_jax.training.data import load_splits
from transformer_jax.training.loop import train


@pytest.fixture
def mixed(words, tmp_path):
    """Thirteen pairs, three times as often as seven texts with holes."""
    (tmp_path / "text.txt").write_text("".join(f"{line} {line}\n" for line in WORDS[:7]))
    task = Task(data=PlainText(dir=str(tmp_path), train="text.txt"), objective=SpanCorruption(), rate=1.0)
    return experiment(
        words,
        mixture=MixtureConfig(tasks=(task,), rate=3.0),
        tokenizer=TokenizerConfig(masks=3),
        model=dataclasses.replace(experiment(words).model, vocab_size=15),
        logging=LoggingConfig(every=1, tensorboard=False),
    )


def test_it_reads_back_equal(mixed):
    assert from_json(to_json(mixed)) == mixed


def test_a_run_learns_all_tasks_and_resumes_exactly(mixed, devices, tmp_path):
    devices(1)
    assert train(mixed, tmp_path / "whole") == 0
    assert train(mixed, tmp_path / "parts", until=7) == 0
    assert train(mixed, tmp_path / "parts") == 0
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    assert whole.metrics.read_bytes() == parts.metrics.read_bytes()
    losses = [json.loads(line)["train/loss"] for line in whole.metrics.read_text().splitlines() if "train" in line]
    assert np.mean(losses[-3:]) < losses[0]
    assert "task 0 data" in json.loads(whole.environment.read_text())[0]["digests"]


def test_other_text_of_a_task_is_refused(mixed, devices, tmp_path):
    devices(1)
    assert train(mixed, tmp_path / "run", until=2) == 0
    (tmp_path / "text.txt").write_text("a b\nc d\n")
    with pytest.raises(InputError, match="task 0 data"):
        train(mixed, tmp_path / "run")


def test_the_digest_of_every_task_is_its_own(mixed):
    splits = load_splits(mixed)
    assert len(splits.mixed) == 1
    assert len(set(splits.digests().values())) == len(splits.digests()) == 2


def test_rates_are_for_all_or_none():
    with pytest.raises(InputError, match="rate: give it to all that is mixed, or to none"):
        MixtureConfig(tasks=(Task(data=PlainText()),), rate=1.0)
    with pytest.raises(InputError, match=r"rate=-1\.0 must be above 0"):
        Task(data=PlainText(), rate=-1.0)
    with pytest.raises(InputError, match=r"temperature=0\.5 must be at least 1"):
        MixtureConfig(temperature=0.5)


def test_a_run_with_drawn_pieces_resumes_exactly(words, devices, tmp_path):
    devices(1)
    chosen = experiment(words, steps=8, tokenizer=TokenizerConfig(sampling=0.2))
    assert train(chosen, tmp_path / "whole") == 0
    assert train(chosen, tmp_path / "parts", until=5) == 0
    assert train(chosen, tmp_path / "parts") == 0
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    assert whole.metrics.read_bytes() == parts.metrics.read_bytes()
