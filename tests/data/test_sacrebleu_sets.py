"""Sets of sacrebleu: from its folder, or fetched into it once; what goes wrong is one line. No test needs a network."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import urllib.error
from pathlib import Path

import pytest
import sacrebleu

from transformer_jax.config import SacrebleuSet
from transformer_jax.data.sources import load_pairs, moved, place_of
from transformer_jax.errors import InputError

DATA = SacrebleuSet(pair="en-de", validation="wmt13", test="wmt14/full")
SIDES = {"src.en": ["A  cat .", "R&amp;D"], "ref.de": ["Eine Katze .", "F&amp;E "], "ref.fr": ["x", "y"]}


def archive():
    """What stands in for test-full.tgz: a document a side, each sentence a segment."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, lines in SIDES.items():
            segments = [f'<seg id="{number}"> {line} </seg>' for number, line in enumerate(lines, start=1)]
            content = "\n".join(['<doc docid="d">', *segments, "</doc>", ""]).encode()
            entry = tarfile.TarInfo(f"test-full/newstest2014-deen-{name}.sgm")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def put(monkeypatch, name, **changed):
    """Puts a set in the place of one of sacrebleu's, so that it learns of another folder."""
    real = sacrebleu.DATASETS[name]
    fields = {"data": real.data, "md5": real.md5, "langpairs": real.langpairs} | changed
    monkeypatch.setitem(sacrebleu.DATASETS, name, type(real)(name, **fields))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in place of sacrebleu's own, and no network."""

    def urlopen(address, *arguments, **flags):
        raise urllib.error.URLError("no route to anywhere")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(sacrebleu, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr("sacrebleu.dataset.base.SACREBLEU_DIR", str(tmp_path))
    for name in ("wmt13", "wmt14/full"):
        put(monkeypatch, name)
    return tmp_path


def write(folder, name, pair, sides):
    """The files of a set as sacrebleu keeps them once they are fetched."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for field, lines in {"src": "", "ref": "", "docid": "d\n", "genre": "g\n", "origlang": "o\n", **sides}.items():
        (folder / name / f"{name.replace('/', '_')}.{pair}.{field}").write_text(lines)


def mistake(data, split="test"):
    with pytest.raises(InputError) as error:
        load_pairs(data, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_splits_are_sets_by_their_names(folder):
    write(folder, "wmt13", "en-de", {"src": "one\ntwo\n", "ref": "eins\nzwei\n"})
    write(folder, "wmt14/full", "en-de", {"src": "three\n", "ref": "drei\n"})
    assert list(load_pairs(DATA, "validation").examples()) == [("one", "eins"), ("two", "zwei")]
    assert list(load_pairs(DATA, "test").examples()) == [("three", "drei")]
    assert load_pairs(DATA, "train") is None
    assert place_of(DATA, "test") == "en-de of sacrebleu's set 'wmt14/full'"
    with pytest.raises(InputError, match=r"--data\.dir elsewhere: data of kind sacrebleu is in no folder"):
        moved(DATA, "elsewhere")


def test_its_folder_is_that_of_the_environment(tmp_path):
    write(tmp_path, "wmt14/full", "en-de", {"src": "three\n", "ref": "drei\n"})
    program = (
        "from transformer_jax.config import SacrebleuSet\n"
        "from transformer_jax.data.sources import load_pairs\n"
        "print(*load_pairs(SacrebleuSet(pair='en-de', test='wmt14/full'), 'test').examples())"
    )
    environment = {**os.environ, "SACREBLEU": str(tmp_path)}
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True)
    assert told.stdout == "('three', 'drei')\n", told.stderr


class TestFetching:
    def serve(self, monkeypatch, content, **changed):
        put(monkeypatch, "wmt14/full", **changed)
        asked = []
        monkeypatch.setattr(urllib.request, "urlopen", lambda address: asked.append(address) or io.BytesIO(content))
        return asked

    def test_once_and_as_sacrebleu_scores_it(self, folder, monkeypatch):
        """Its own way to read the files: spaces made one, entities left as they are."""
        content = archive()
        asked = self.serve(monkeypatch, content, md5=[hashlib.md5(content).hexdigest()])
        for _ in range(2):
            assert list(load_pairs(DATA, "test").examples()) == [("A cat .", "Eine Katze ."), ("R&amp;D", "F&amp;E")]
        assert asked == ["https://statmt.org/wmt14/test-full.tgz"]

    def test_of_several_references_the_first(self, folder, monkeypatch):
        files = [f"test-full/newstest2014-deen-{side}.sgm" for side in SIDES]
        self.serve(monkeypatch, archive(), md5=None, langpairs={"en-de": files})
        assert load_pairs(DATA, "test").targets == ["Eine Katze .", "F&amp;E"]

    def test_another_content_than_sacrebleu_knows(self, folder, monkeypatch, capfd):
        self.serve(monkeypatch, b"an error page")
        told = mistake(DATA)
        assert "MD5 sum of downloaded file was incorrect" in told
        assert f"what is broken in {folder / 'wmt14' / 'full'} has to be removed first" in told
        assert capfd.readouterr() == ("", "")

    def test_no_network(self, folder):
        told = mistake(DATA)
        assert told.startswith(f"data: the set 'wmt14/full' of sacrebleu is not in {folder}, and fetching it failed")
        assert "no route to anywhere" in told
        assert "run sacrebleu -t wmt14/full -l en-de --echo src, and set SACREBLEU to" in told


def test_mistakes(folder):
    assert "data: sacrebleu has no set 'wmt14/fill'; `sacrebleu --list`" in mistake(
        SacrebleuSet(pair="en-de", test="wmt14/fill")
    )
    assert "data.pair='de-fr': the set 'wmt14/full' of sacrebleu has cs-en, de-en, en-cs" in mistake(
        SacrebleuSet(pair="de-fr", test="wmt14/full")
    )
    for source, target in (("one\ntwo\n", "eins\n"), ("one\n", "eins\nzwei\n")):
        write(folder, "wmt13", "en-de", {"src": source, "ref": target})
        told = mistake(DATA, "validation")
        assert "wmt13.en-de.src and wmt13.en-de.ref: line 2 is in one of them only; remove" in told
