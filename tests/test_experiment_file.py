"""Loading experiment files, and what is told of mistakes in them."""

import sys

import pytest
from plain import one_line

from transformer_jax import runs
from transformer_jax.errors import InputError

HEADER = "from transformer_jax.config import *\n"
MINIMAL = "Experiment(data=Numerals(), training=TrainingConfig(steps={steps}))\n"


def write_experiment(path, steps=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}\ndef get_config():\n    return {MINIMAL.format(steps=steps)}")
    return path


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
