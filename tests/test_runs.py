"""Starting, opening and resuming run folders, and their record."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
from plain import experiment, one_line

from transformer_jax import runs
from transformer_jax.config import AdamW, LoggingConfig, MeshConfig, ModelConfig, TextFiles, to_json


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
