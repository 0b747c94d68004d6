"""Every Python snippet of the README runs as it stands there, and every file it names exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_snippets():
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[0])
def test_a_snippet_runs(snippet, trained, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "numerals").symlink_to(trained)  # what `make train` leaves, with another experiment in it
    (tmp_path / "models").mkdir()
    monkeypatch.syspath_prepend(ROOT / "tests" / "pretrained")
    importlib.import_module("whole").write_whole("marian", tmp_path / "models" / "opus-mt-en-de")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})


def test_what_the_readme_names_exists():
    files = re.findall(r"`((?:transformer_jax|experiments)/[\w/]+\.py)`", README)
    files += re.findall(r"\]\((docs/\S+)\)", README)
    assert len(files) > 8
    for file in files:
        assert (ROOT / file).exists(), file
