"""A grid of runs in one folder: which they are, what becomes of them, and that the same command goes on."""

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from matplotlib.image import imread

from transformer_jax import plots, runs
from transformer_jax.cli.main import main
from transformer_jax.config import Experiment, Numerals, TrainingConfig
from transformer_jax.errors import DivergenceError, InputError
from transformer_jax.runs import RunFolder, load_experiment
from transformer_jax.sweeping import grid
from transformer_jax.training import loop
from transformer_jax.training.metrics import ProgressReport, read
from transformer_jax.training.step import Trainer

PLAIN = Experiment(data=Numerals(), training=TrainingConfig(steps=7))
GRID = ["--seed", "3", "5", "--model.dropout", "0.1", "0.3", "0.2"]
NAMES = [f"model.dropout={dropout},seed={seed}" for seed in (3, 5) for dropout in (0.1, 0.3, 0.2)]


def loss_of(experiment):
    """What the stand-in reaches, after something worse before and before something worse at the end."""
    return experiment.seed + experiment.model.dropout


class StandIn:
    """In place of training: `trained` are the runs, `done` those that ended, `fate` says what happens to one."""

    def __init__(self):
        self.trained, self.done, self.experiments, self.fate = [], [], [], {}

    def __call__(self, experiment, workdir):
        self.trained.append(Path(workdir).name)
        self.experiments.append(experiment)
        with runs.lock(workdir):
            folder = runs.start(workdir, experiment)
            fate = self.fate.get(Path(workdir).name, 0)
            losses = [(1, loss_of(experiment) + 1), (2, loss_of(experiment)), (3, loss_of(experiment) + 0.5)]
            lines = [{"step": step, "validation/loss": loss} for step, loss in losses[: 1 if fate else 3]]
            folder.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            if isinstance(fate, Exception):
                raise fate
            if fate == 0:
                folder.results.write_text("{}")
                self.done.append(folder.path.name)
            return fate


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn: a picture takes longer than all the rest."""
    drawn = []
    monkeypatch.setattr(plots, "sweep", lambda *arguments: drawn.append(arguments))
    return drawn


@pytest.fixture
def stand_in(monkeypatch, drawn):
    stand_in = StandIn()
    monkeypatch.setattr(loop, "train_among", stand_in)
    return stand_in


@pytest.fixture
def sweep(experiment_file, tmp_path, stand_in):
    """Sweeps with these flags in one folder; returns the exit code."""
    return lambda *flags: main(["sweep", str(experiment_file), "--workdir", str(tmp_path / "lr"), *flags])


def table_of(folder):
    """The table by column."""
    header, *lines = [line.split("\t") for line in (folder / "table.tsv").read_text().splitlines()]
    return {name: list(column) for name, column in zip(header, zip(*lines, strict=True), strict=True)}


class TestGrid:
    def test_the_last_field_changes_fastest(self):
        points = grid.make(PLAIN, {"seed": [3, 5], "model.dropout": [0.1, 0.3, 0.2]}).points
        assert [(point.values["seed"], point.values["model.dropout"]) for point in points] == [
            *[(3, 0.1), (3, 0.3), (3, 0.2)],
            *[(5, 0.1), (5, 0.3), (5, 0.2)],
        ]
        assert [point.name for point in points] == NAMES

    def test_a_name_depends_on_no_order(self):
        turned = grid.make(PLAIN, {"model.dropout": [0.2, 0.3, 0.1], "seed": [5, 3]}).points
        assert sorted(point.name for point in turned) == sorted(NAMES)

    def test_names_are_those_of_files(self):
        values = ["a/b", "a-b", "../c", "ü", "x" * 300, "x" * 301, ""]
        names = [point.name for point in grid.make(PLAIN, {"init_from": [*values, None]}).points]
        assert len(set(names)) == len(names)
        for name in names:
            assert re.fullmatch(r"init_from=[\w.,=+-]{0,200}", name, re.ASCII)
        assert names[1] == "init_from=a-b"
        assert names[-1] == "init_from=None"

    def test_an_experiment_has_the_values_of_its_point(self):
        sweep = grid.make(PLAIN, {"training.clip_norm": [None, 1.0], "model.gated": [False, True]})
        assert [sweep.at(point).training.clip_norm for point in sweep.points] == [None, None, 1.0, 1.0]
        assert [sweep.at(point).model.gated for point in sweep.points] == [False, True, False, True]
        point = sweep.points[0]
        assert sweep.at(point) == PLAIN

    def test_what_is_drawn_is_drawn_once_and_again(self):
        whole = {"seed": list(range(11)), "batch.rows": list(range(1, 8))}
        drawn = [grid.make(PLAIN, whole, count, 1).points for count in (76, 76, 20)]
        assert drawn[0] == drawn[1]
        assert len({point.name for point in drawn[0]}) == 76
        assert {point.name for point in drawn[0]} < {point.name for point in grid.make(PLAIN, whole).points}
        assert drawn[2] == drawn[0][:20]  # more points of the same seed only add some
        other = {point.name for point in grid.make(PLAIN, whole, 20, 2).points}
        assert other != {point.name for point in drawn[2]}

    def test_any_point_may_be_drawn(self):
        drawn = {grid.make(PLAIN, {"seed": list(range(7))}, 1, seed).points[0].values["seed"] for seed in range(41)}
        assert drawn == set(range(7))


class TestFlags:
    @pytest.fixture
    def as_train(self, experiment_file, monkeypatch):
        """The experiments that `train` makes of lists of flags."""

        def experiments(*lists):
            made = []
            monkeypatch.setattr(loop, "train", lambda experiment, *_, **__: made.append(experiment) or 0)
            for flags in lists:
                assert main(["train", str(experiment_file), "--workdir", "x", *flags.split()]) == 0
            return made

        return experiments

    @pytest.mark.parametrize(
        ("flags", "each"),
        [
            ("--seed 1 2", ["--seed 1", "--seed 2"]),
            ("--seed 2 --seed 1", ["--seed 2", "--seed 1"]),
            ("--seed=1 --seed=2", ["--seed 1", "--seed 2"]),
            ("--schedule.peak 1e-3 .5", ["--schedule.peak 1e-3", "--schedule.peak .5"]),
            ("--model.num-heads 1 2", ["--model.num_heads 1", "--model.num_heads 2"]),
            ("--model.norm pre post", ["--model.norm pre", "--model.norm post"]),
            ("--training.clip-norm None 2", ["--training.clip-norm None", "--training.clip-norm 2"]),
            ("--model.gated --model.no-gated", ["--model.gated", "--model.no-gated"]),
            ("--mesh.data -1 1", ["--mesh.data -1", "--mesh.data 1"]),
            (
                "--seed 1 2 --data.train a b --training.frozen x y --model.gated",
                [f"--seed {seed} --data.train a b --training.frozen x y --model.gated" for seed in (1, 2)],
            ),
            (
                "--model.width 8 6 --model.num_heads 2 1",
                [f"--model.width {width} --model.num_heads {heads}" for width in (8, 6) for heads in (2, 1)],
            ),
        ],
    )
    def test_a_point_is_what_train_would_train(self, flags, each, sweep, stand_in, as_train):
        assert sweep(*flags.split()) == 0
        assert stand_in.experiments == as_train(*each)

    @pytest.mark.parametrize(
        ("flags", "parts"),
        [
            ("--seed 1", ["no field has several values, such as --seed 0 1 2"]),
            ("--seed 1 1", ["--seed 1: stands there twice"]),
            ("--schedule.peak 1e-3 0.001", ["--schedule.peak 0.001: stands there twice"]),
            ("--seed 1 x", ["--seed", "'x'", "(default: 0)"]),
            ("--seed 1 2 --model.dropout 0.1 2", ["--seed 1 --model.dropout 2.0: ", "dropout=2.0 must be in [0, 1)"]),
            ("--model.num_heads 3 4", ["--model.num_heads 4: ", "num_heads=4 does not divide width=6"]),
            ("--model.norm post pre middle", ["--model.norm", "'middle'", "'post', 'pre'"]),
            ("--model.num_head 1 2", ["--model.num_head", "Perhaps you meant: --model.num-heads"]),
            ("--model.gated True False", ["both ways are --model.gated --model.no-gated"]),
            ("--seed 1 2 --sample 3", ["--sample 3: the grid has 2 points; choose 1 to 2"]),
            ("--seed 1 2 --sample 0", ["--sample 0: the grid has 2 points"]),
            ("--seed 1 2 --data.train a b c", ["must be a source file and a target file"]),
            ("--seed 1 2 --slurm '", ["""--slurm "'": No closing quotation"""]),
        ],
    )
    def test_mistakes_before_anything_is_trained(
        self, flags, parts, experiment_file, tmp_path, refused, stand_in, monkeypatch
    ):
        refused(["sweep", experiment_file, "--workdir", tmp_path / "lr", *flags.split()], *parts)
        assert not stand_in.trained
        assert not list(tmp_path.iterdir())

    def test_mistakes_in_the_first_argument(self, tmp_path, trained, refused):
        refused(["sweep", "--seed", "1", "2"], "comes first: transformer-jax sweep FILE --workdir DIR --FIELD VALUE")
        refused(["sweep", tmp_path], f"{tmp_path}: not the folder of a sweep: it has no sweep.json")
        refused(["sweep", tmp_path / "a.py"], "no such experiment file")

    def test_help(self, experiment_file, capsys):
        assert main(["sweep", str(experiment_file), "--help"]) == 0
        words = " ".join(capsys.readouterr().out.replace("│", " ").split())
        for part in ("--sample-seed", "--slurm", "--model.ffn-width INT d_ff (default: 11)", "take several anyway"):
            assert part in words


class TestRuns:
    def test_a_folder_and_a_row_for_each_point(self, sweep, stand_in, drawn, experiment_file, tmp_path, capsys):
        assert sweep(*GRID) == 0
        folder = tmp_path / "lr"
        assert stand_in.trained == NAMES
        for name, experiment in zip(NAMES, stand_in.experiments, strict=True):
            assert runs.open_run(folder / name) == experiment
        losses = [loss_of(experiment) for experiment in stand_in.experiments]
        assert table_of(folder) == {
            "point": ["1", "2", "3", "4", "5", "6"],
            "seed": ["3", "3", "3", "5", "5", "5"],
            "model.dropout": ["0.1", "0.3", "0.2"] * 2,
            "step": ["3"] * 6,
            "state": ["done"] * 6,
            "best_loss": list(map(str, losses)),
            "final_loss": [str(loss + 0.5) for loss in losses],
            "reason": [""] * 6,
        }
        out, err = capsys.readouterr()
        assert [line.split() for line in out.splitlines()] == [
            ["point", "seed", "model.dropout", "step", "state", "best_loss", "final_loss", "reason"],
            *[
                [str(number), str(one.seed), str(one.model.dropout), "3", "done", f"{loss:.5g}", f"{loss + 0.5:.5g}"]
                for number, (one, loss) in enumerate(zip(stand_in.experiments, losses, strict=True), start=1)
            ],
        ]
        assert len({line.index("done") for line in out.splitlines()[1:]}) == 1  # columns are aligned
        assert err.endswith(f"best: point 1, {folder / NAMES[0]}\n")
        saved = json.loads((folder / "sweep.json").read_text())
        assert saved["grid"] == {"seed": [3, 5], "model.dropout": [0.1, 0.3, 0.2]}
        assert [point["name"] for point in saved["points"]] == NAMES
        assert saved["experiment"]["model"]["width"] == load_experiment(experiment_file).model.width
        *_, (values, points, metric, path) = drawn
        assert (values, metric) == ({"seed": (3, 5), "model.dropout": (0.1, 0.3, 0.2)}, "loss")
        assert path == folder / "sweep.png"
        assert points == [
            ({"seed": one.seed, "model.dropout": one.model.dropout}, loss_of(one)) for one in stand_in.experiments
        ]

    def test_the_folder_alone_shows_the_table_and_changes_nothing(self, sweep, stand_in, tmp_path, capsys):
        sweep(*GRID)
        told = capsys.readouterr().out
        (tmp_path / "lr" / "table.tsv").unlink()
        assert main(["sweep", str(tmp_path / "lr")]) == 0
        assert capsys.readouterr().out == told
        assert len(stand_in.trained) == 6
        assert not (tmp_path / "lr" / "table.tsv").exists()

    def test_what_fails_is_told_and_the_others_go_on(self, sweep, stand_in, tmp_path, capsys):
        stand_in.fate = {
            NAMES[0]: InputError("train.a: no\tsuch file"),
            NAMES[1]: DivergenceError("step 9: a spike"),
            NAMES[2]: RuntimeError("out of memory\nand more"),
        }
        assert sweep(*GRID) == 3
        assert stand_in.trained == NAMES
        table = table_of(tmp_path / "lr")
        assert table["state"] == ["failed", "diverged", "failed", "done", "done", "done"]
        assert table["step"] == ["1", "1", "1", "3", "3", "3"]
        reasons = ["train.a: no such file", "step 9: a spike", "RuntimeError: out of memory"]
        assert table["reason"] == [*reasons, "", "", ""]
        err = capsys.readouterr().err
        assert "error: train.a: no such file\n" in err
        assert "Traceback" in err  # of what nobody expected
        assert f"best: point 4, {tmp_path / 'lr' / NAMES[3]}" in err

        # A mistake may have been mended; a divergence would be the same again, and still is one.
        stand_in.trained.clear()
        stand_in.fate = {NAMES[2]: 143}
        assert sweep(*GRID) == 143
        assert stand_in.trained == [NAMES[0], NAMES[2]]
        assert table_of(tmp_path / "lr")["state"] == ["done", "diverged", "stopped", "done", "done", "done"]
        assert table_of(tmp_path / "lr")["reason"] == ["", reasons[1], "", "", "", ""]
        stand_in.fate = {}
        assert sweep(*GRID) == 3
        assert stand_in.trained == [NAMES[0], NAMES[2], NAMES[2]]

    def test_a_signal_stops_the_sweep_and_the_same_command_goes_on(self, sweep, stand_in, tmp_path, capsys):
        stand_in.fate = {NAMES[1]: 143}
        assert sweep(*GRID) == 143
        assert stand_in.trained == NAMES[:2]
        assert table_of(tmp_path / "lr")["state"] == ["done", "stopped", *["waiting"] * 4]
        assert table_of(tmp_path / "lr")["best_loss"][2:] == [""] * 4
        assert " -  " in capsys.readouterr().out
        stand_in.fate = {}
        assert sweep(*GRID) == 0
        assert stand_in.trained == [*NAMES[:2], *NAMES[1:]]

    def test_what_another_process_trains_is_left_to_it(self, sweep, stand_in, tmp_path, capsys):
        stand_in.fate = {NAMES[0]: 130}
        sweep(*GRID)
        stand_in.fate = {}
        with runs.lock(tmp_path / "lr" / NAMES[1]):
            assert sweep(*GRID) == 0
        assert stand_in.done == [NAMES[0], *NAMES[2:]]
        assert table_of(tmp_path / "lr")["state"] == ["done", "running", *["done"] * 4]
        assert f"{NAMES[1]}: in use by process {os.getpid()} on " in capsys.readouterr().err
        assert main(["sweep", str(tmp_path / "lr")]) == 0
        assert "running" not in capsys.readouterr().out

    def test_a_sample_is_the_same_again_and_may_grow(self, sweep, stand_in, tmp_path):
        for count, trained in ((3, 3), (3, 3), (5, 5), (5, 5)):
            assert sweep(*GRID, "--sample", str(count)) == 0
            assert len(set(stand_in.trained)) == len(stand_in.trained) == trained
        assert sweep(*GRID, "--sample", "5", "--sample-seed", "1") == 2
        assert sweep(*GRID) == 0  # the whole grid has them all
        assert sorted(stand_in.trained) == sorted(NAMES)

    def test_another_sweep_is_refused_unless_it_only_adds_points(self, sweep, stand_in, tmp_path, capfd):
        assert sweep("--seed", "3", "5", "--model.dropout", "0.25") == 0
        for flags, difference in (
            (["--seed", "3", "7", "--model.dropout", "0.25"], "points that are no longer there: 1, first seed=5"),
            (["--seed", "3", "5"], "model.dropout: 0.25 -> 0.1"),
            (["--batch.rows", "3", "5", "--model.dropout", "0.25"], "fields with several values: seed -> batch.rows"),
        ):
            assert sweep(*flags) == 2
            (line,) = capfd.readouterr().err.splitlines()[-1:]
            assert line.startswith(f"error: {tmp_path / 'lr'}: holds another sweep, to which points may be added")
            assert line.endswith(difference)
        assert sweep("--seed", "2", "5", "3", "--model.dropout", "0.25", "--data.dir", "elsewhere") == 0
        assert stand_in.trained == ["seed=3", "seed=5", "seed=2"]
        assert table_of(tmp_path / "lr")["seed"] == ["3", "5", "2"]  # numbers stay
        assert stand_in.experiments[-1].data.dir == "elsewhere"

    def test_a_folder_of_something_else(self, experiment_file, run, refused, stand_in):
        refused(
            ["sweep", experiment_file, "--workdir", run, "--seed", "1", "2"],
            f"{run}: not the folder of a sweep (it has no sweep.json) and not empty",
        )
        (run / "sweep.json").write_text('{"experiment": 3}')
        refused(["sweep", run], f"{run / 'sweep.json'}: ")
        assert not stand_in.trained


class TestPoint:
    def test_one_is_trained_alone(self, sweep, stand_in, tmp_path):
        stand_in.fate = {NAMES[0]: 130}
        sweep(*GRID)
        stand_in.trained.clear()
        assert main(["sweep", str(tmp_path / "lr"), "--point", "5"]) == 0
        assert stand_in.trained == [NAMES[4]]
        assert table_of(tmp_path / "lr")["state"] == ["stopped", *["waiting"] * 3, "done", "waiting"]
        assert main(["sweep", str(tmp_path / "lr"), "--point", "1"]) == 130

    def test_it_fails_as_train_does(self, sweep, stand_in, tmp_path, refused):
        stand_in.fate = {NAMES[0]: 130}
        sweep(*GRID)
        stand_in.fate = {NAMES[1]: DivergenceError("too hot")}
        assert main(["sweep", str(tmp_path / "lr"), "--point", "2"]) == 3
        assert table_of(tmp_path / "lr")["reason"][1] == "too hot"
        for number in ("0", "7"):
            refused(
                ["sweep", tmp_path / "lr", "--point", number],
                f"--point {number}: {tmp_path / 'lr'} has the points 1 to 6",
            )


class TestSlurm:
    STAND_INS = {  # noqa: RUF012  # not changed
        "sbatch": 'printf "%s\\n" "$@" > "$CALLS/sbatch"\necho "Submitted batch job 7"\nexit "${CODE:-0}"',
        "srun": 'printf "%s\\n" "$@" > "$CALLS/srun"\nexit "${CODE:-0}"',
        "scontrol": 'echo "$@" > "$CALLS/scontrol"',
    }

    @pytest.fixture
    def calls(self, tmp_path, monkeypatch):
        """What stand-ins for SLURM are called with, by their names."""
        commands, calls = tmp_path / "commands", tmp_path / "calls"
        for folder in (commands, calls):
            folder.mkdir()
        for name, body in self.STAND_INS.items():
            (commands / name).write_text(f"#!/bin/bash\n{body}\n")
            (commands / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(calls))
        return lambda name: (calls / name).read_text().splitlines() if (calls / name).exists() else None

    def test_a_task_trains_its_point(self, sweep, stand_in, calls, tmp_path, monkeypatch, capsys):
        assert sweep(*GRID, "--slurm", "--gpus=1 --array=1-6%2") == 0
        assert capsys.readouterr().out == "Submitted batch job 7\n"
        script = tmp_path / "lr" / "sweep.sh"
        assert calls("sbatch") == ["--array=1-6", "--gpus=1", "--array=1-6%2", str(script)]
        assert not stand_in.trained
        assert table_of(tmp_path / "lr")["state"] == ["waiting"] * 6
        for line in script.read_text().splitlines():
            if line.startswith("#SBATCH --output="):
                assert Path(line.partition("=")[2]).parent.is_dir()
        for task in (4, 2):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
            subprocess.run(["bash", str(script)], check=True)
            program, *arguments = calls("srun")
            assert (program, arguments[:2]) == (sys.executable, ["-m", "transformer_jax.cli.main"])
            assert main(arguments[2:]) == 0
        assert stand_in.trained == [NAMES[3], NAMES[1]]

        sweep(*GRID, "--slurm", "--gpus=1")  # what is finished is not submitted again
        assert calls("sbatch")[0] == "--array=1,3,5-6"

    @pytest.mark.parametrize(
        ("code", "restarts", "again"), [(0, 0, False), (3, 0, False), (138, 19, True), (75, 20, False)]
    )
    def test_what_is_queued_again(self, code, restarts, again, sweep, calls, tmp_path, monkeypatch):
        sweep(*GRID, "--slurm=")
        for name, value in {"CODE": code, "SLURM_RESTART_COUNT": restarts, "SLURM_JOB_ID": 8}.items():
            monkeypatch.setenv(name, str(value))
        assert subprocess.run(["bash", str(tmp_path / "lr" / "sweep.sh")], check=False).returncode == code
        assert calls("scontrol") == (["requeue 8"] if again else None)

    def test_mistakes(self, sweep, calls, tmp_path, monkeypatch, capfd):
        monkeypatch.setenv("CODE", "1")
        assert sweep(*GRID, "--slurm", "--gpus=1") == 2
        script = tmp_path / "lr" / "sweep.sh"
        assert capfd.readouterr().err == f"error: sbatch --array=1-6 --gpus=1 {script}: exit code 1:\n"
        monkeypatch.setenv("PATH", str(tmp_path))
        assert sweep(*GRID, "--slurm", "--gpus=1") == 2
        told = f"error: no sbatch on this machine; where there is one: sbatch --array=1-6 --gpus=1 {script}\n"
        assert capfd.readouterr().err == told

    def test_nothing_is_left(self, sweep, calls, capsys):
        sweep(*GRID)
        capsys.readouterr()
        assert sweep(*GRID, "--slurm", "") == 0
        assert capsys.readouterr().out == "all points are finished: nothing to submit\n"
        assert calls("sbatch") is None


class TestRealRuns:
    """Trained in earnest, but for the report at the end, whose translations are not what is asked here."""

    FLAGS = "--seed 3 5 --mesh.data 1 --evaluation.translations 0 --evaluation.every 2 --logging.every 1"

    @pytest.fixture
    def sweep(self, experiment_file, monkeypatch):
        first = jax.devices()[:1]
        monkeypatch.setattr(jax, "devices", lambda: first)
        monkeypatch.setattr(loop, "Trainer", functools.cache(Trainer))
        monkeypatch.setattr(loop, "report", lambda experiment, folder, *_: folder.results.write_text("{}"))
        return lambda folder: main(["sweep", str(experiment_file), "--workdir", str(folder), *self.FLAGS.split()])

    def test_interrupted_and_resumed_is_uninterrupted(self, sweep, tmp_path, monkeypatch, capsys):
        assert sweep(tmp_path / "straight") == 0
        advance, asked = ProgressReport.advance, []

        def asks_to_stop(self, step):
            advance(self, step)
            if step == 1 and len(asked) == 1:  # of the second point
                os.kill(os.getpid(), signal.SIGTERM)
            if step == 1:
                asked.append(step)

        with monkeypatch.context() as patched:
            patched.setattr(ProgressReport, "advance", asks_to_stop)
            assert sweep(tmp_path / "stopped") == 143
        table = table_of(tmp_path / "stopped")
        assert table["state"] == ["done", "stopped"]
        assert 1 <= int(table["step"][1]) < 3
        assert sweep(tmp_path / "stopped") == 0
        for name in ("seed=3", "seed=5"):
            straight, stopped = (RunFolder(tmp_path / folder / name) for folder in ("straight", "stopped"))
            assert stopped.metrics.read_bytes() == straight.metrics.read_bytes()
            assert [line["step"] for line in read(straight.metrics)] == [1, 2, 2, 3, 3]
        for file in ("table.tsv", "sweep.json"):
            assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "straight" / file).read_bytes()
        assert imread(tmp_path / "stopped" / "sweep.png", "png").shape[1] > 400
        losses = table_of(tmp_path / "straight")["final_loss"]
        assert losses[0] != losses[1]
        assert dataclasses.replace(runs.open_run(straight.path), seed=3) == runs.open_run(
            straight.path.with_name("seed=3")
        )
