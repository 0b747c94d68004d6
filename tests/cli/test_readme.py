"""Every Python snippet of the README and of docs/ runs as it stands there, and every file they name exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    page.name: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
SNIPPETS = [
    pytest.param(name, snippet, id=f"{name}-{number}")
    for name, text in PAGES.items()
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]


def test_there_are_snippets():
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize(("name", "snippet"), SNIPPETS)
def test_a_snippet_runs(name, snippet, trained, language_model, classifier, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "numerals").symlink_to(trained)  # what `make train` leaves, with another experiment in it
    (tmp_path / "runs" / "language_model").symlink_to(language_model)
    (tmp_path / "runs" / "classifier").symlink_to(classifier)
    (tmp_path / "models").mkdir()
    monkeypatch.syspath_prepend(ROOT / "tests" / "pretrained")
    importlib.import_module("whole").write_whole("marian", tmp_path / "models" / "opus-mt-en-de")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, name, "exec"), {})


def test_what_the_pages_name_exists():
    text = "".join(PAGES.values())
    files = re.findall(r"\b((?:transformer_jax|experiments)/[\w/]+\.py)\b", text)
    files += re.findall(r"\]\((docs/\S+)\)", text)
    assert len(files) > 8
    for file in files:
        assert (ROOT / file).exists(), file
