"""Each mistake in the data is one line that names the file, the line and what is wrong."""

import dataclasses
import json
import sys
import zlib

import pytest
import writers

from transformer_jax.config import JsonLines, OwnData, Parquet, PlainText, TsvFiles
from transformer_jax.data.sources import load_pairs
from transformer_jax.errors import InputError

PAIRS = [("one", "eins"), ("two", "zwei")]


def mistake(data, split="train"):
    with pytest.raises(InputError) as error:
        load_pairs(data, split)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", list(writers.PACK)[1:])
def test_compression_that_is_broken_at_any_point(suffix, tmp_path):
    """Cut off anywhere, also before its first byte; with any other byte at its start; with a byte of it flipped."""
    data = writers.plain(tmp_path, [("", f"a line, the {number} th") for number in range(5)], suffix)
    file = tmp_path / data.train
    whole = file.read_bytes()
    damaged = [whole[:cut] for cut in range(len(whole))]
    damaged += [b"x" + whole, whole + b"x", whole[:-3] + bytes([whole[-3] ^ 16]) + whole[-2:]]
    for content in damaged:
        file.write_bytes(content)
        assert f"{file}: broken " in mistake(data)
    file.write_bytes(whole + bytes(3) + whole + bytes(5))  # two streams, filled up
    assert len(load_pairs(data, "train")) == 10


@pytest.mark.parametrize("zeros", [512, 70_000])
def test_zeros_behind_a_stream_may_be_read_apart_from_it(zeros, tmp_path):
    """They begin with the next 64 KiB, or fill more than those."""
    stored = zlib.compressobj(0, wbits=zlib.MAX_WBITS + 16)
    whole = stored.compress(b"a" * (2**16 - 28)) + stored.flush()
    assert len(whole) == 2**16
    (tmp_path / "a.gz").write_bytes(whole + bytes(zeros))
    assert len(load_pairs(PlainText(dir=str(tmp_path), train="a.gz"), "train")) == 1


def test_the_line_of_broken_compression_and_text_is_named(tmp_path):
    lines = [f"{number * number**5:x}" for number in range(9_973)]
    data = writers.plain(tmp_path, [("", line) for line in lines], ".gz")
    file = tmp_path / data.train
    file.write_bytes(file.read_bytes()[:-5])
    assert f"{file}: broken gzip: it ends too early, in line 9974;" in mistake(data)
    file = tmp_path / "a.bz2"
    file.write_bytes(writers.PACK[".bz2"](b"one\ntwo\xff\n"))
    assert f"{file}, line 2, byte 4: invalid UTF-8" in mistake(PlainText(dir=str(tmp_path), train="a.bz2"))


@pytest.mark.parametrize(
    ("module", "write", "extra"),
    [
        ("zstandard", lambda folder: writers.plain(folder, PAIRS, ".zst"), "zstd"),
        ("pyarrow", lambda folder: writers.parquet(folder, PAIRS), "parquet"),
        ("datasets", lambda folder: writers.hugging_face(folder, PAIRS), "datasets"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(module, write, extra, tmp_path, monkeypatch):
    data = write(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert f"library {module}, which is missing: pip install 'transformer-jax[{extra}]'" in mistake(data)


@pytest.mark.parametrize("data", [PlainText, JsonLines, Parquet])
def test_files_that_are_missing_or_no_files(data, tmp_path):
    assert "no such file; give the folder of the data with --data.dir" in mistake(data(dir=str(tmp_path)))
    assert "Is a directory" in mistake(data(dir=str(tmp_path.parent), train=tmp_path.name))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"source": "x", "target": "y"', ["line 2, character 30: broken JSON: "]),
        ("", ["line 2: empty, and it must be a JSON object"]),
        ("[" * 100_000, ["line 2: JSON that cannot be read"]),
        ("[1]", ["line 2: list where an object has to be, with a field 'source'"]),
        ('{"source": "x", "text": "y"}', ["line 2: there is no field 'target'; there are 'source', 'text'"]),
        ('{"source": "x", "target": null}', ["line 2: 'target' is null, not text or a number"]),
        ('{"source": "x", "target": NaN}', ["line 2: 'target' is nan, not text or a number"]),
        ('{"source": ["x"], "target": "y"}', ["line 2: 'source' is list, not text or a number"]),
        ('{"source": "\\ud800", "target": "y"}', ["line 2: 'source' is '\\ud800'", "surrogates"]),
    ],
)
def test_lines_of_json(line, parts, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"source": "a", "target": "b"}\n' + line + "\n")
    message = mistake(JsonLines(dir=str(tmp_path)))
    assert message.startswith(f"{tmp_path}/train.jsonl, line 2")
    for part in parts:
        assert part in message


def test_numbers_and_inner_fields_of_json(tmp_path):
    records = [{"in.a": "x", "in": {"b": 7}}, {"in.a": 0.5, "in": {"b": True}}, {"in": {"a": -3, "b": "y"}}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, records)))
    pairs = load_pairs(JsonLines(dir=str(tmp_path), source="in.a", target="in.b"), "train")
    assert list(pairs.examples()) == [("x", "7"), ("0.5", "true"), ("-3", "y")]


class TestParquet:
    def test_a_file_that_is_none(self, tmp_path):
        data = writers.parquet(tmp_path, PAIRS)
        content = (tmp_path / "a.parquet").read_bytes()
        for damaged in (b"", b"no Parquet", content[:-7]):
            (tmp_path / "a.parquet").write_bytes(damaged)
            assert f"{tmp_path}/a.parquet: broken Parquet: " in mistake(data)

    def test_columns_and_rows(self, tmp_path):
        data = writers.parquet(tmp_path, [*PAIRS, ("three", None)])
        assert "data.source='fr': " in (message := mistake(dataclasses.replace(data, source="fr")))
        assert "['en', 'inner', 'x']" in message
        assert "row 1: there is no field 'inner.fr'; there are 'de'" in mistake(
            dataclasses.replace(data, target="inner.fr")
        )
        assert f"{tmp_path}/a.parquet, row 3: 'inner.de' is null" in mistake(data)
        numbers = load_pairs(dataclasses.replace(data, source=None, target="x"), "train")
        assert numbers.targets == ["3", "3", "3"]


def test_columns_of_plain_tsv(tmp_path):
    (tmp_path / "train.tsv").write_text("a\tb\nc\n")
    assert "train.tsv, line 2: 1 tab-separated columns" in mistake(TsvFiles(dir=str(tmp_path), columns=(None, 1)))
    assert "counted from 0" in mistake(TsvFiles(dir=str(tmp_path), columns=(None, -1)))


class Groups:
    """Examples with a label each, or with more of them."""

    def __init__(self, labels=2):
        self.labels = labels

    def pairs(self, split):
        return [("a", "b"), ("a b", "b a")]

    def groups(self, split):
        return ["short", "long", "none"][: self.labels]


class Bad:
    """Sources that are not quite."""

    def __init__(self, examples=None):
        self.examples = examples

    def pairs(self, split):
        return {"text": ["ab"], "triple": [("a", "b", "c")], "number": [("a", 7)], "mixed": [("a", "b"), (None, "b")]}[
            self.examples
        ]


class TestOwn:
    @pytest.mark.parametrize(
        ("source", "arguments", "parts"),
        [
            ("no_such_module:X", (), ["there is no module 'no_such_module'", "nor in "]),
            ("writers.inner:X", (), ["there is no module 'writers.inner'"]),
            ("writers:Wrods", (), ["writers has no class 'Wrods'"]),
            ("writers:lines", (("texts", 1), ("suffix", "")), ["no method pairs(split)"]),
            ("test_bad_sources:Bad", (("x", 1),), ["data.arguments={'x': 1}: ", "unexpected keyword argument 'x'"]),
            ("test_bad_sources:Bad", (("examples", "text"),), ["split 'train', example 1: 'ab' must be a pair"]),
            ("test_bad_sources:Bad", (("examples", "triple"),), ["example 1: ('a', 'b', 'c') must be"]),
            ("test_bad_sources:Bad", (("examples", "number"),), ["example 1: ('a', 7) must be"]),
            ("test_bad_sources:Bad", (("examples", "mixed"),), ["example 2: some sources are None"]),
        ],
    )
    def test_mistakes(self, source, arguments, parts):
        if source == "writers:lines":
            arguments, parts = (("texts", ""), ("suffix", "")), parts
        message = mistake(OwnData(source=source, arguments=arguments))
        for part in parts:
            assert part in message

    def test_what_the_class_itself_raises_comes_through(self):
        with pytest.raises(KeyError, match="nothing"):
            load_pairs(OwnData(source="test_bad_sources:Bad", arguments=(("examples", "nothing"),)), "train")

    def test_groups_are_those_of_the_class(self):
        data = OwnData(source="test_bad_sources:Groups")
        assert load_pairs(data, "train").groups == ["short", "long"]
        data = OwnData(source="test_bad_sources:Groups", arguments=(("labels", 3),))
        assert "split 'train' of 'test_bad_sources:Groups': 3 groups of 2 examples" in mistake(data)

    def test_a_module_of_the_working_directory(self, tmp_path, monkeypatch):
        (tmp_path / "module_of_here.py").write_text(
            "class X:\n    def pairs(self, split):\n        return [('a', 'b')]\n"
        )
        monkeypatch.chdir(tmp_path)
        before = list(sys.path)
        assert list(load_pairs(OwnData(source="module_of_here:X"), "test").examples()) == [("a", "b")]
        assert sys.path == before
