"""Which runs a grid has, and which the flags of the command line make."""

import dataclasses
import re

import pytest
from grids import NAMES
from plain import experiment

from transformer_jax.cli.fields import several, values_of
from transformer_jax.cli.main import main
from transformer_jax.config import MixtureConfig, PlainText, Task
from transformer_jax.sweeping import grid
from transformer_jax.training import loop

PLAIN = experiment()


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

    def test_a_field_of_a_task_has_values_too(self):
        tasks = (Task(data=PlainText(), rate=1.0), Task(data=PlainText(), rate=2.0))
        mixed = dataclasses.replace(PLAIN, mixture=MixtureConfig(tasks=tasks, rate=3.0))
        choices, left = several(mixed, ["--mixture.tasks.1.rate", "5", "7", "--mixture.tasks.0.data.train", "a", "b"])
        assert left == ["--mixture.tasks.0.data.train", "a", "b"]
        sweep = grid.make(mixed, values_of(mixed, choices))
        assert [[task.rate for task in sweep.at(point).mixture.tasks] for point in sweep.points] == [[1, 5], [1, 7]]

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
