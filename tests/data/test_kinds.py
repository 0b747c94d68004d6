"""The same content is the same pairs, wherever it lies and however it is packed."""

import dataclasses
import functools

import pytest
import writers

from transformer_jax.config import OwnData, PlainText, TextFiles, TsvFiles
from transformer_jax.data.sources import Pairs, iterate, load_pairs, moved, place_of
from transformer_jax.errors import InputError

PAIRS = [("one", "eins"), ("a\u2028b", "größer\u0085"), ("", "x"), ('漢字 \\ "', "'"), (" 7", "𝄞 ")]
OF_FILES = [writers.text, writers.tsv, writers.jsonl]
OTHERS = [writers.parquet, writers.hugging_face, writers.tensorflow_dataset, writers.own]


def forms(of_files, others):
    """Each kind, as a function of folder and pairs; those of files with every compression."""
    packed = [
        pytest.param(functools.partial(kind, suffix=suffix), id=kind.__name__ + suffix)
        for kind in of_files
        for suffix in writers.PACK
    ]
    return packed + [pytest.param(kind, id=kind.__name__) for kind in others]


@pytest.mark.parametrize("write", forms(OF_FILES, OTHERS))
def test_every_kind_gives_the_same_pairs(write, tmp_path):
    data = write(tmp_path, PAIRS)
    assert list(iterate(data, "train")) == PAIRS
    sources, targets = zip(*PAIRS, strict=True)
    assert load_pairs(data, "train").digest == Pairs(sources, targets).digest
    if not isinstance(data, OwnData):
        data = dataclasses.replace(data, validation=None)
    assert iterate(data, "validation") is load_pairs(data, "validation") is None
    assert place_of(data, "train")

    (tmp_path / "other").mkdir()
    with pytest.raises((InputError, FileNotFoundError), match=r"other|--data\.dir"):
        load_pairs(moved(data, str(tmp_path / "other")), "train")
    assert load_pairs(moved(moved(data, str(tmp_path / "other")), str(tmp_path)), "train").digest


@pytest.mark.parametrize("write", forms([writers.plain, *OF_FILES[1:]], OTHERS))
def test_every_kind_gives_the_same_plain_text(write, tmp_path):
    data = write(tmp_path, PAIRS)
    if isinstance(data, TsvFiles):
        data = dataclasses.replace(data, columns=(None, 1))
    elif isinstance(data, OwnData):
        data = dataclasses.replace(data, arguments=(("plain", True), ("count", 5)))
    elif not isinstance(data, PlainText):
        data = dataclasses.replace(data, source=None)
    pairs = load_pairs(data, "train")
    assert pairs == Pairs(None, [target for _, target in PAIRS])
    assert pairs.digest == Pairs(None, tuple(target for _, target in PAIRS)).digest
    assert pairs.digest != Pairs([], pairs.targets).digest
    assert len(pairs) == 5
    assert list(pairs.examples()) == [(None, target) for _, target in PAIRS]


@pytest.mark.parametrize("kind", [*OF_FILES, writers.plain, writers.parquet])
def test_patterns_and_several_files_are_read_in_order(kind, tmp_path):
    def written(folder, pairs):
        folder.mkdir()
        return kind(folder, pairs) if kind is writers.parquet else kind(folder, pairs, "")

    whole = load_pairs(written(tmp_path / "all", PAIRS), "train")
    for name, part in (("part-1", PAIRS[3:]), ("part-0", PAIRS[:3])):
        data = written(tmp_path / name, part)
    files = data.train if isinstance(data, TextFiles) else (data.train,)
    for names in (
        [f"part-*/{file}" for file in files],
        [f"**/part-?/{file}" for file in files],
        [f"part-{part}/{file}" for part in (0, 1) for file in files],
    ):
        train = tuple(names) if isinstance(data, TextFiles) or len(names) > 1 else names[0]
        data = dataclasses.replace(data, dir=str(tmp_path), train=train)
        assert load_pairs(data, "train") == whole
    assert place_of(data, "train").count(str(tmp_path)) == 2 * len(files)
    data = dataclasses.replace(data, train=("part-*/none-*", "x")[: 1 + isinstance(data, TextFiles)])
    with pytest.raises(InputError, match=r"part-\*/none-\*: no file fits this pattern; .*--data\.dir"):
        load_pairs(data, "train")


def test_patterns_of_aligned_files_fit_as_many(tmp_path):
    for name in ("1.a", "2.a", "1.b"):
        (tmp_path / name).write_text("x\n")
    with pytest.raises(InputError, match=r"/\*\.a fits 2 files, .*/\*\.b 1: "):
        load_pairs(TextFiles(dir=str(tmp_path), train=("*.a", "*.b")), "train")


def test_a_file_whose_name_is_a_pattern_is_itself(tmp_path):
    for name in ("x[1].txt", "x1.txt"):
        (tmp_path / name).write_text(name)
    assert list(iterate(PlainText(dir=str(tmp_path), train="x[1].txt"), "train")) == [(None, "x[1].txt")]


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        ("line", ["", "one", "two", " ", "", "three", "four"]),
        ("paragraph", ["one\ntwo", "three", "four"]),
        ("file", ["\none\ntwo\n \n\nthree", "four"]),
    ],
)
def test_plain_text_by_line_paragraph_and_file(unit, texts, tmp_path):
    (tmp_path / "1.txt").write_bytes(b"\none\r\ntwo\n \n\nthree\n")
    (tmp_path / "2.txt").write_bytes(b"four")
    assert load_pairs(PlainText(dir=str(tmp_path), train="*.txt", unit=unit), "train") == Pairs(None, texts)


def test_sets_larger_than_memory_are_read_one_by_one(tmp_path):
    """What is wrong with the third line stops nobody who wants two."""
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xff\n")
    examples = iterate(PlainText(dir=str(tmp_path), train="a.txt"), "train")
    assert [next(examples), next(examples)] == [(None, "one"), (None, "two")]
    with pytest.raises(InputError, match="line 3"):
        next(examples)


def test_lines_longer_than_what_is_read_at_once(tmp_path):
    texts = ["x" * 65_535, "y" * 65_537, "", "é" * 100_003]
    for suffix in writers.PACK:
        data = writers.plain(tmp_path, [("", text) for text in texts], suffix)
        assert [text for _, text in iterate(data, "train")] == texts
