"""A run killed, stopped, damaged and started again is the same run to the bit: dropout, packing and all."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from real_processes import fingerprints
from reversed_words import write_pairs

from transformer_jax import runs, sharding
from transformer_jax.config import MeshConfig
from transformer_jax.errors import InputError
from transformer_jax.initialisation import abstract_parameters
from transformer_jax.training import loop, metrics
from transformer_jax.training.checkpoints import Checkpoints

EXPERIMENT = """
from transformer_jax.config import *

def get_config():
    return Experiment(
        data=TextFiles(
            dir={dir!r}, train=("train.a", "train.b"), validation=("held.a", "held.b"), test=("held.a", "held.b")
        ),
        batch=BatchConfig(rows=4, source_length=17, target_length=19),
        model=ModelConfig(
            encoder_layers=1, decoder_layers=2, width=8, num_heads=2, ffn_width=12, vocab_size=29, dropout=0.3,
            attention_dropout=0.1, activation_dropout=0.1,
        ),
        schedule=Schedule(kind="cosine", peak=1e-2, warmup_steps=3),
        training=TrainingConfig(epochs=3, clip_norm=1.0, accumulation=2, average_decay=0.9),
        evaluation=EvaluationConfig(every=5, translations=2),
        checkpoints=CheckpointConfig(every=3, newest=2),
        decoding=DecodingConfig(beam=2, extra_length=3),
        logging=LoggingConfig(every=2),
    )
"""


@pytest.fixture(scope="module")
def experiment_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    write_pairs(folder, "train", 61, seed=1)
    write_pairs(folder, "held", 7, seed=2)
    file = folder / "reversed_words.py"
    file.write_text(EXPERIMENT.format(dir=str(folder)))
    return file


@pytest.fixture(scope="module")
def stopping_file(experiment_file):
    """The same programs, stopped early: training makes a letter that it never sees ever less likely.

    The first line of the test set is blank.
    """
    folder, text = experiment_file.parent, experiment_file.read_text()
    for side, unseen in (("a", "abc"), ("b", "z z")):
        (folder / f"unseen.{side}").write_text(5 * f"{unseen}\n")
        (folder / f"blank.{side}").write_text("\n" + (folder / f"held.{side}").read_text())
    for old, new in (
        ('validation=("held.a", "held.b")', 'validation=("unseen.a", "unseen.b")'),
        ('test=("held.a", "held.b")', 'test=("blank.a", "blank.b")'),
        ("average_decay=0.9", "average_decay=0.9, patience=1"),
        ("translations=2", "translations=0"),
    ):
        assert old in text
        text = text.replace(old, new)
    file = folder / "stopping.py"
    file.write_text(text)
    return file


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Programs compiled by one process serve the next: the starts are many, the program is one."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }


@pytest.fixture(scope="module")
def optimized(compiled, tmp_path_factory):
    """The same for programs that are compiled as users compile them, not quickly as tests do."""
    quick = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")  # of tests/conftest.py
    kept = {name: value for name, value in compiled.items() if name not in quick}
    return {**kept, "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("optimized"))}


def run(file: Path, workdir: Path, environment: dict[str, str], *death: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(Path(__file__).with_name("run_and_die.py")), str(file), str(workdir), *death]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def straight(experiment_file, compiled, tmp_path_factory):
    """The run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    result = run(experiment_file, workdir, compiled)
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.fixture(scope="module")
def straight_optimized(experiment_file, optimized, tmp_path_factory):
    """That run, of programs that are compiled as users compile them."""
    workdir = tmp_path_factory.mktemp("runs") / "optimized"
    result = run(experiment_file, workdir, optimized)
    assert result.returncode == 0, result.stderr
    return workdir


def parameters(workdir: Path, step: int | None = None) -> list[np.ndarray]:
    import jax

    experiment = runs.open_run(workdir)
    mesh = sharding.make_mesh(MeshConfig())
    abstract = {"parameters": abstract_parameters(experiment.model, mesh)}
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        steps = None if step is None else [step]
        return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoints.restore(abstract, steps).items)]


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert fingerprints(one) == fingerprints(other)
    for ours, theirs in zip(parameters(one), parameters(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_writes_all_that_it_promises(straight):
    steps = [line["step"] for line in metrics.read(straight / "metrics.jsonl")]
    assert steps == sorted(steps)
    evaluations = [line for line in metrics.read(straight / "metrics.jsonl") if "validation/loss" in line]
    assert [line["step"] for line in evaluations][:2] == [5, 10]
    assert {"validation/perplexity", "validation/bleu", "validation/chrf"} < set(evaluations[0])
    assert "|tok:13a|" in evaluations[0]["validation/bleu_signature"]
    results = json.loads((straight / "results.json").read_text())
    assert results["split"] == "test"
    assert "|tok:13a|" in results["bleu_signature"]
    assert len((straight / "translations" / "test.txt").read_text().splitlines()) == 7
    for name in ("config.json", "environment.json", "curves.png", "attention.png", "tokenizer", "timings.jsonl"):
        assert (straight / name).exists(), name


@dataclass(frozen=True)
class Battered:
    """That run with all that can happen to it, how each of its starts ended, and what they said."""

    workdir: Path
    codes: list[int]
    told: list[str]
    damaged: dict  # fingerprints of the checkpoint of step 6 before it was damaged
    made_again: dict  # and after that


@pytest.fixture(scope="module")
def battered(experiment_file, compiled, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "battered"
    ends = [run(experiment_file, workdir, compiled, "step", "2")]  # before the first checkpoint
    ends.append(stopped_by(signal.SIGTERM, experiment_file, workdir, compiled))
    ends.append(run(experiment_file, workdir, compiled, "save", "6"))
    ends.append(run(experiment_file, workdir, compiled, "save", "9"))  # there are lines of metrics behind step 6
    damaged = leaves(workdir, 6)
    cut(workdir, 6)
    ends.append(run(experiment_file, workdir, compiled, "save", "10"))  # of what was just evaluated
    made_again = leaves(workdir, 6)
    ends.append(run(experiment_file, workdir, compiled))
    return Battered(workdir, [end.returncode for end in ends], [end.stderr for end in ends], damaged, made_again)


def stopped_by(number: int, file: Path, workdir: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Sends the signal when the first line of metrics is there."""
    command = [sys.executable, str(Path(__file__).with_name("run_and_die.py")), str(file), str(workdir)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("step 2/"):
                process.send_signal(number)
                break
        rest = process.stderr.read()
    return subprocess.CompletedProcess(command, process.returncode, stderr=rest)


def leaves(workdir: Path, step: int) -> dict:
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.leaves(step)


def cut(workdir: Path, step: int) -> None:
    """Halves the largest file of the parameters."""
    files = [file for file in (workdir / "checkpoints" / str(step) / "parameters").rglob("*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def test_a_run_killed_stopped_and_damaged_is_the_same_to_the_bit(straight, battered):
    killed = -signal.SIGKILL
    assert battered.codes == [killed, 128 + signal.SIGTERM, killed, killed, killed, 0], battered.told
    assert_same_run(straight, battered.workdir)


def test_sigterm_says_at_which_step_it_saved(battered):
    assert "SIGTERM: saved step " in battered.told[1]


def test_a_damaged_checkpoint_is_named_kept_and_made_again(battered):
    assert "checkpoint 6 is damaged: parameters/" in battered.told[4]
    assert "kept as damaged-6" in battered.told[4]
    assert "is damaged" not in battered.told[5]
    assert battered.made_again == battered.damaged
    with Checkpoints(battered.workdir / "checkpoints") as checkpoints:
        assert checkpoints.aside() == ["damaged-6"]


def test_a_finished_run_says_so_and_does_nothing(straight, experiment_file, compiled):
    before = {path: path.stat().st_mtime_ns for path in (straight / "checkpoints").rglob("*")}
    result = run(experiment_file, straight, compiled)
    assert result.returncode == 0
    assert "finished" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in (straight / "checkpoints").rglob("*")} == before


@pytest.fixture(scope="module")
def stopped(stopping_file, compiled, tmp_path_factory):
    """A run that stopped early, and nothing else happened to."""
    workdir = tmp_path_factory.mktemp("runs") / "stopped"
    result = run(stopping_file, workdir, compiled)
    assert result.returncode == 0, result.stderr
    assert "step 10: no better loss in 1 evaluations" in result.stderr
    return workdir


def test_a_run_that_stops_early_reports_its_best_checkpoint(stopped):
    losses = {
        line["step"]: line["validation/loss"]
        for line in metrics.read(stopped / "metrics.jsonl")
        if "validation/loss" in line
    }
    assert list(losses) == [5, 10]
    assert losses[5] < losses[10]
    assert json.loads((stopped / "results.json").read_text())["step"] == 5
    with Checkpoints(stopped / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [5, 9, 10]  # the best, and the newest two


@pytest.mark.slow
def test_a_run_killed_at_its_early_stop_stops_there_again(stopped, stopping_file, compiled, tmp_path):
    workdir = tmp_path / "killed"
    assert run(stopping_file, workdir, compiled, "save", "10").returncode == -signal.SIGKILL
    result = run(stopping_file, workdir, compiled)
    assert result.returncode == 0, result.stderr
    assert_same_run(stopped, workdir)
    assert (workdir / "results.json").read_bytes() == (stopped / "results.json").read_bytes()


def test_a_blank_first_line_of_the_test_set_is_reported_like_any_other(stopped):
    lines = (stopped / "translations" / "test.txt").read_text().split("\n")[:-1]
    assert len(lines) == 1 + 7
    assert lines[0] == ""
    assert json.loads((stopped / "results.json").read_text())["sentences"] == 1 + 7
    assert (stopped / "attention.png").exists()


def test_a_split_without_pairs_is_one_line_at_the_start(experiment_file, tmp_path):
    experiment = runs.load_experiment(experiment_file)
    experiment = replace(experiment, batch=replace(experiment.batch, rows=8))
    (experiment_file.parent / "empty").touch()
    for split in ("train", "validation", "test"):
        data = replace(experiment.data, **{split: ("empty", "empty")})
        with pytest.raises(InputError, match=f"data.{split}: there are no pairs in it") as caught:
            loop.train(replace(experiment, data=data), tmp_path / split)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / split / "checkpoints").exists()


def test_rows_that_the_devices_cannot_share_are_found_before_any_data_is_read(experiment_file, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.datasets, "load", None)
    with pytest.raises(InputError, match=r"batch\.rows=4: not a multiple of the 8 devices that share a batch; 8 would"):
        loop.train(runs.load_experiment(experiment_file), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_deaths_drawn_by_seed(straight_optimized, experiment_file, optimized, tmp_path, seed):
    """Behind any step and in any save, each behind the one before, as far as the run got to be saved."""
    last = metrics.read(straight_optimized / "metrics.jsonl")[-1]["step"]
    for step in sorted(random.Random(seed).sample(range(1, last), 4)):
        is_saved = step % 3 == 0 or step % 5 == 0
        death = ("save" if is_saved and step % 2 else "step", str(step))
        assert run(experiment_file, tmp_path / "run", optimized, *death).returncode == -signal.SIGKILL, death
    result = run(experiment_file, tmp_path / "run", optimized)
    assert result.returncode == 0, result.stderr
    assert_same_run(straight_optimized, tmp_path / "run")
