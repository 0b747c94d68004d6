"""Loading experiments, starting and resuming run folders, their record and their lock."""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from transformer_jax import runs
from transformer_jax.config import (
    Adam,
    AdamW,
    Experiment,
    LoggingConfig,
    MeshConfig,
    ModelConfig,
    Numerals,
    TextFiles,
    TrainingConfig,
    to_json,
)
from transformer_jax.errors import InputError

HEADER = "from transformer_jax.config import *\n"
MINIMAL = "Experiment(data=Numerals(), training=TrainingConfig(steps={steps}))\n"


def experiment(**fields):
    return Experiment(**{"data": Numerals(), "training": TrainingConfig(steps=7)} | fields)


def write_experiment(path, steps=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}\ndef get_config():\n    return {MINIMAL.format(steps=steps)}")
    return path


@contextlib.contextmanager
def one_line(*parts):
    """The block raises an InputError of one line that holds all of the parts."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


class TestLoadExperiment:
    def test_loads_from_any_working_directory(self, tmp_path, monkeypatch):
        write_experiment(tmp_path / "files" / "small.py", steps=11)
        monkeypatch.chdir(tmp_path)
        assert runs.load_experiment("files/small.py").training.steps == 11
        monkeypatch.chdir(tmp_path / "files")
        assert runs.load_experiment("small.py").training.steps == 11
        monkeypatch.chdir("/")
        assert runs.load_experiment(tmp_path / "files" / "small.py").training.steps == 11

    def test_builds_on_neighbours_of_its_own_folder(self, tmp_path):
        for folder, steps in (("one", 11), ("two", 13)):
            write_experiment(tmp_path / folder / "base.py", steps)
            (tmp_path / folder / "big.py").write_text(
                "from experiments import base\ndef get_config():\n    return base.get_config()\n"
            )
        assert runs.load_experiment(tmp_path / "one" / "big.py").training.steps == 11
        assert runs.load_experiment(tmp_path / "two" / "big.py").training.steps == 13

    def test_modules_are_afterwards_what_they_were(self, tmp_path, monkeypatch):
        marker = type(sys)("experiments")
        monkeypatch.setitem(sys.modules, "experiments", marker)
        runs.load_experiment(write_experiment(tmp_path / "small.py"))
        assert [name for name in sys.modules if name.startswith("experiments")] == ["experiments"]
        assert sys.modules["experiments"] is marker

    def test_modules_are_what_they_were_after_an_error_too(self, tmp_path):
        (tmp_path / "bad.py").write_text("1 / 0\n")
        before = set(sys.modules)
        with pytest.raises(InputError):
            runs.load_experiment(tmp_path / "bad.py")
        assert not [name for name in set(sys.modules) - before if name.startswith("experiments")]

    @pytest.mark.parametrize("asked", ["numerls.py", "numerals"])
    def test_a_missing_file_suggests_its_neighbour(self, tmp_path, asked):
        write_experiment(tmp_path / "numerals.py")
        with one_line(tmp_path / asked, "no such experiment file", f"did you mean {tmp_path / 'numerals.py'}?"):
            runs.load_experiment(tmp_path / asked)

    @pytest.mark.parametrize("argument", ['steps="7"', 'steps: Literal["7", "11"] = "7"'])
    def test_a_word_behind_a_colon_is_given_to_get_config(self, argument, tmp_path):
        body = f"def get_config({argument}):\n    return {MINIMAL.format(steps='int(steps)')}"
        (tmp_path / "a.py").write_text(f"from typing import Literal\n{HEADER}{body}")
        assert runs.load_experiment(tmp_path / "a.py").training.steps == 7
        assert runs.load_experiment(f"{tmp_path / 'a.py'}:11").training.steps == 11

    def test_words_that_are_not_taken(self, tmp_path):
        write_experiment(tmp_path / "a.py")
        with one_line(f"{tmp_path / 'a.py'}: get_config() takes no word; leave out :text"):
            runs.load_experiment(f"{tmp_path / 'a.py'}:text")
        (tmp_path / "c.py").write_text(
            f"from typing import Literal\n{HEADER}def get_config(steps: Literal['7', '11']):\n    return int(steps)\n"
        )
        with one_line(f"{tmp_path / 'c.py'}: :13: get_config() takes :7, :11"):
            runs.load_experiment(f"{tmp_path / 'c.py'}:13")
        with one_line(f"{tmp_path / 'b.py'}: no such experiment file"):
            runs.load_experiment(f"{tmp_path / 'b.py'}:text")

    def test_a_missing_folder(self, tmp_path):
        with one_line(tmp_path / "none" / "a.py", "no such experiment file"):
            runs.load_experiment(tmp_path / "none" / "a.py")

    def test_a_folder_and_another_kind_of_file(self, tmp_path):
        (tmp_path / "a.yaml").write_text("")
        with one_line(tmp_path, "folder"):
            runs.load_experiment(tmp_path)
        with one_line("a.yaml", ".py file"):
            runs.load_experiment(tmp_path / "a.yaml")

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("", ["a.py: has no function get_config"]),
            ("get_config = 3\n", ["a.py: has no function get_config"]),
            ("def get_config():\n    return {}\n", ["a.py: get_config() must return an Experiment, not dict"]),
            ("def get_config(size):\n    return size\n", ["a.py: TypeError:", "size"]),
            ("x = 1\ndef get_config(:\n", ["a.py:2: syntax error:"]),
            ("\n\nimport no_such_module\n", ["a.py:3: ModuleNotFoundError:", "no_such_module"]),
            ("def get_config():\n    raise KeyError('two\\nlines')\n", ["a.py:2: KeyError:"]),
            (HEADER + "def get_config():\n    return ModelConfig(widht=3)\n", ["a.py:3: ", "widht", "'width'"]),
            (HEADER + "def get_config():\n    return ModelConfig(num_heads=7)\n", ["a.py:3: ", "num_heads=7", "512"]),
        ],
    )
    def test_a_mistake_in_the_file_is_told_with_its_line(self, tmp_path, monkeypatch, text, parts):
        (tmp_path / "a.py").write_text(text)
        monkeypatch.chdir(tmp_path)
        with one_line(*parts):
            runs.load_experiment("a.py")

    def test_a_mistake_in_a_neighbour_is_told_with_its_line(self, tmp_path):
        (tmp_path / "base.py").write_text("\ndef get_config():\n    return 1 / 0\n")
        (tmp_path / "big.py").write_text(
            "from experiments import base\ndef get_config():\n    return base.get_config()\n"
        )
        with one_line(f"{tmp_path / 'base.py'}:3: ZeroDivisionError"):
            runs.load_experiment(tmp_path / "big.py")
        (tmp_path / "base.py").write_text("a = 1\nb = 2\nc = = 3\n")
        with one_line(f"{tmp_path / 'base.py'}:3: syntax error"):
            runs.load_experiment(tmp_path / "big.py")

    def test_a_mistake_inside_a_library_is_told_at_the_users_line(self, tmp_path):
        (tmp_path / "a.py").write_text("import json\ndef get_config():\n    return json.loads('{')\n")
        with one_line(f"{tmp_path / 'a.py'}:3: JSONDecodeError"):
            runs.load_experiment(tmp_path / "a.py")


class TestStart:
    def test_a_new_run_reads_back(self, tmp_path):
        made = experiment(seed=11)
        folder = runs.start(tmp_path / "deep" / "run", made)
        assert runs.open_run(folder.path) == made
        assert os.listdir(folder.path) == ["config.json"]

    def test_an_empty_folder_becomes_a_run(self, tmp_path):
        runs.start(tmp_path, experiment())
        assert runs.open_run(tmp_path) == experiment()

    def test_placement_may_change_and_is_rewritten(self, tmp_path):
        trained(runs.start(tmp_path, experiment(data=TextFiles(dir="a"))))
        moved = experiment(data=TextFiles(dir="b"), logging=LoggingConfig(every=13))
        folder = runs.start(tmp_path, moved)
        assert runs.open_run(tmp_path).data.dir == "a"  # the data has not been read yet: it may not even be there
        runs.record_session(folder, moved, platform_name="cpu", devices=["one"], digests={})
        assert runs.open_run(tmp_path) == moved

    def test_a_try_that_never_trained_leaves_nothing_that_the_next_one_uses(self, tmp_path):
        folder = runs.start(tmp_path, experiment())
        folder.tokenizer.mkdir()
        (folder.tokenizer / "joint.model").write_bytes(b"half")
        runs.start(tmp_path, experiment())
        assert not folder.tokenizer.exists()

    def test_another_identity_is_refused_with_all_differences(self, tmp_path):
        trained(runs.start(tmp_path, experiment(seed=3)))
        other = experiment(seed=5, model=ModelConfig(dropout=0.2), optimizer=AdamW())
        parts = ["seed: 3 -> 5", "model.dropout: 0.1 -> 0.2", "optimizer.kind: adam -> adamw", "; "]
        with one_line(tmp_path, "--workdir", *parts):
            runs.start(tmp_path, other)
        assert runs.open_run(tmp_path) == experiment(seed=3)

    def test_an_experiment_that_never_trained_may_be_corrected(self, tmp_path):
        folder = runs.start(tmp_path, experiment(seed=3))
        folder.tokenizer.mkdir()
        runs.record_session(folder, experiment(seed=3), platform_name="cpu", devices=[], digests={"tokenizer": "a"})
        runs.start(tmp_path, experiment(seed=5))
        assert runs.open_run(tmp_path).seed == 5
        assert not folder.tokenizer.exists()
        runs.check_digests(folder, {"tokenizer": "b"})

    def test_a_folder_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("")
        with one_line(tmp_path, "config.json", "thesis.tex", "--workdir"):
            runs.start(tmp_path, experiment())
        assert os.listdir(tmp_path) == ["thesis.tex"]

    def test_a_file_in_the_way_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        with one_line(tmp_path / "file", "--workdir"):
            runs.start(tmp_path / "file", experiment())

    def test_leftovers_of_a_process_that_died_do_not_matter(self, tmp_path):
        (tmp_path / ".config.json.tmp").write_text("{")
        (tmp_path / ".lock").write_text("")
        runs.start(tmp_path, experiment())
        assert runs.open_run(tmp_path) == experiment()


def trained(folder):
    """Marks the run as one that has a checkpoint."""
    (folder.checkpoints / "7").mkdir(parents=True)


class TestOpenRun:
    def test_what_is_missing_is_named(self, tmp_path):
        with one_line(tmp_path / "none", "no such run folder"):
            runs.open_run(tmp_path / "none")
        with one_line(tmp_path, "config.json"):
            runs.open_run(tmp_path)

    def test_a_mistake_in_config_json_is_told_with_its_file(self, tmp_path):
        folder = runs.start(tmp_path, experiment())
        folder.config.write_text(to_json(experiment()).replace('"seed"', '"sed"'))
        with one_line(folder.config, "sed", "'seed'"):
            runs.open_run(tmp_path)
        folder.config.write_bytes(b"\xff")
        with one_line(folder.config):
            runs.open_run(tmp_path)


class TestSessions:
    def test_each_start_appends_a_session(self, tmp_path):
        first = experiment(seed=11, mesh=MeshConfig(data=2))
        folder = runs.start(tmp_path, first)
        runs.record_session(folder, first, platform_name="cpu", devices=["cpu:0", "cpu:1"], digests={"train": "a"})
        second = dataclasses.replace(first, mesh=MeshConfig(fsdp=3))
        runs.record_session(folder, second, platform_name="gpu", devices=["gpu:0"], digests={"train": "a"})
        one, two = json.loads(folder.environment.read_text())
        assert (one["platform"], one["devices"], one["seed"]) == ("cpu", ["cpu:0", "cpu:1"], 11)
        assert (two["platform"], two["devices"], two["digests"]) == ("gpu", ["gpu:0"], {"train": "a"})
        assert (one["placement"]["mesh.data"], two["placement"]["mesh.fsdp"]) == (2, 3)
        assert "seed" not in one["placement"]
        assert one["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert one["versions"]["numpy"] == numpy.__version__

    def test_digests_of_the_first_session_hold(self, tmp_path):
        folder = runs.start(tmp_path, experiment())
        for digests in ({"train": "a", "tokenizer": "b"}, {"train": "a", "tokenizer": "b", "test": "c"}):
            runs.record_session(folder, experiment(), platform_name="cpu", devices=[], digests=digests)
        runs.check_digests(folder, {"train": "a", "tokenizer": "b", "test": "c", "more": "d"})
        with one_line(tmp_path, "tokenizer: b -> x", "test: c -> y"):
            runs.check_digests(folder, {"train": "a", "tokenizer": "x", "test": "y"})
        with one_line("train: a -> z"):
            runs.record_session(folder, experiment(), platform_name="cpu", devices=[], digests={"train": "z"})
        with one_line("test: c -> none"):
            known = {"train": "a", "tokenizer": "b"}
            runs.record_session(folder, experiment(), platform_name="cpu", devices=[], digests=known)
        assert len(runs.read_sessions(folder)) == 2

    def test_a_broken_record_is_told(self, tmp_path):
        folder = runs.start(tmp_path, experiment())
        folder.environment.write_text("[{")
        with one_line(folder.environment, "broken"):
            runs.read_sessions(folder)

    def test_the_commit_says_whether_the_tree_is_changed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        folder = runs.RunFolder(tmp_path)

        def commit_of_session():
            runs.record_session(folder, experiment(), platform_name="cpu", devices=[], digests={})
            return runs.read_sessions(folder)[-1]["commit"]

        def git(*arguments):
            identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
            return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout

        assert commit_of_session() is None
        git("init")
        Path("file").write_text("one")
        git("add", "file")
        git("commit", "--message", "one")
        commit = git("rev-parse", "HEAD").strip()
        assert commit_of_session() == commit
        Path("file").write_text("two")
        assert commit_of_session() == f"{commit}-dirty"


HOLD = """
import sys, time
from transformer_jax import runs
with runs.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


class TestLock:
    def test_a_second_holder_is_refused_until_the_first_is_done(self, tmp_path):
        with (
            runs.lock(tmp_path / "run"),
            one_line(tmp_path / "run", f"process {os.getpid()} "),
            runs.lock(tmp_path / "run"),
        ):
            pass
        with runs.lock(tmp_path / "run"):
            pass

    def test_another_process_is_named_and_its_death_frees_the_folder(self, tmp_path):
        other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
        with other:
            try:
                assert other.stdout.readline() == b"held\n"
                with one_line(tmp_path, f"process {other.pid} "), runs.lock(tmp_path):
                    pass
            finally:
                other.kill()
        with runs.lock(tmp_path):
            pass

    def test_a_locked_folder_is_still_empty_for_a_new_run(self, tmp_path):
        with runs.lock(tmp_path):
            runs.start(tmp_path, experiment(optimizer=Adam()))
        assert runs.open_run(tmp_path) == experiment()

    def test_who_is_in_a_folder(self, tmp_path):
        holder, here = tmp_path / ".lock.holder", socket.gethostname()
        assert not runs.is_in_use(tmp_path)
        with runs.lock(tmp_path):
            assert runs.is_in_use(tmp_path)
        assert not runs.is_in_use(tmp_path)
        with subprocess.Popen(["true"]) as gone:
            gone.wait()
        for who, expected in (
            (f"process {gone.pid} on {here}", False),  # it was killed
            (f"process {gone.pid} on another", True),
            (f"process {os.getppid()} on {here}", True),
            ("", False),
        ):
            holder.write_text(who)
            assert runs.is_in_use(tmp_path) is expected
