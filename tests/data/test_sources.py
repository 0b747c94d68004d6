import gzip
import hashlib
import re
from pathlib import Path

import pytest

from transformer_jax.config import TextFiles, TsvFiles
from transformer_jax.data.sources import Pairs, load_pairs
from transformer_jax.errors import InputError

FILES = ("train.source", "train.target")


def text(folder: Path, source: bytes = b"one\ntwo\n", target: bytes = b"eins\nzwei\n", **fields) -> TextFiles:
    for name, content in zip(FILES, (source, target), strict=True):
        (folder / name).write_bytes(content)
    return TextFiles(dir=str(folder), **fields)


def test_lines_of_two_files_are_pairs(tmp_path: Path):
    assert load_pairs(text(tmp_path), "train") == Pairs(["one", "two"], ["eins", "zwei"])
    assert load_pairs(text(tmp_path), "validation") is None
    assert load_pairs(text(tmp_path, test=FILES), "test") == load_pairs(text(tmp_path), "train")


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\n\n", ["one", ""]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\r\r\ntwo", ["one\r", "two"]),  # only one carriage return belongs to the line's end
        ("one\u2028still\u0085one\n".encode(), ["one\u2028still\u0085one"]),
        ("\ufeffone\n\ufefftwo".encode(), ["one", "\ufefftwo"]),  # only the mark at the start of the file is one
    ],
)
def test_lines_end_at_line_feeds_only(content: bytes, lines: list[str], tmp_path: Path):
    pairs = load_pairs(text(tmp_path, content, content), "train")
    assert list(pairs.sources) == list(pairs.targets) == lines


def test_gzip_is_read_by_its_suffix(tmp_path: Path):
    (tmp_path / "a.gz").write_bytes(gzip.compress("Größe\n".encode()))
    data = TextFiles(dir=str(tmp_path), train=("a.gz", "a.gz"))
    assert load_pairs(data, "train") == Pairs(["Größe"], ["Größe"])


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"one\n", mtime=0)[:-3], b"\x1f\x8b\x08" + bytes(31)])
def test_broken_gzip_is_named(content: bytes, tmp_path: Path):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.gz: broken gzip"):
        load_pairs(TextFiles(dir=str(tmp_path), train=("a.gz", "a.gz")), "train")


def test_a_missing_file_is_named_with_the_flag(tmp_path: Path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'train.source'}: no such file") + ".*--data.dir"):
        load_pairs(TextFiles(dir=str(tmp_path)), "train")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'train.tsv'}: no such file") + ".*--data.dir"):
        load_pairs(TsvFiles(dir=str(tmp_path)), "train")


def test_unequal_line_counts_name_both(tmp_path: Path):
    with pytest.raises(InputError, match=r"train\.source has 2 lines, .*train\.target has 3"):
        load_pairs(text(tmp_path, target=b"a\nb\nc\n"), "train")


def test_invalid_utf8_names_file_line_and_byte(tmp_path: Path):
    with pytest.raises(InputError, match=r"train\.target, line 2, byte 4: invalid UTF-8"):
        load_pairs(text(tmp_path, target=b"eins\nzwe\xff\n"), "train")
    with pytest.raises(InputError, match=r"train\.source, line 1, byte 1: invalid UTF-8"):
        load_pairs(text(tmp_path, source="one\n".encode("utf-16")), "train")


def test_a_digest_that_differs_names_file_expected_and_found(tmp_path: Path):
    found, expected = hashlib.sha256(b"one\ntwo\n").hexdigest(), "ab" * 32
    data = text(tmp_path, sha256=(("train.source", expected),))
    with pytest.raises(InputError, match=rf"train\.source: sha256 {found}, but .* {expected}"):
        load_pairs(data, "train")
    assert load_pairs(text(tmp_path, sha256=(("train.source", found.upper()),)), "train") is not None


def test_missing_files_are_fetched_once_and_kept(tmp_path: Path):
    remote, local = tmp_path / "remote", tmp_path / "new" / "local"
    remote.mkdir()
    digest = hashlib.sha256(b"one\ntwo\n").hexdigest()
    text(remote)
    data = TextFiles(dir=str(local), url=remote.as_uri() + "/", sha256=(("train.source", digest),))
    first = load_pairs(data, "train")
    assert first == Pairs(["one", "two"], ["eins", "zwei"])
    assert sorted(file.name for file in local.iterdir()) == sorted(FILES)
    for file in remote.iterdir():
        file.unlink()
    assert load_pairs(data, "train") == first


def test_a_wrong_file_is_not_kept_when_fetched(tmp_path: Path):
    remote, local = tmp_path / "remote", tmp_path / "local"
    remote.mkdir()
    text(remote)
    data = TextFiles(dir=str(local), url=remote.as_uri(), sha256=(("train.source", "ab" * 32),))
    with pytest.raises(InputError, match=r"remote/train\.source: sha256"):
        load_pairs(data, "train")
    assert not local.exists()


@pytest.mark.parametrize("url", ["file:///no/such/folder", "http://127.0.0.1:9", "no address"])
def test_what_cannot_be_fetched_is_one_line_with_the_way_out(url: str, tmp_path: Path):
    with pytest.raises(InputError) as error:
        load_pairs(TextFiles(dir=str(tmp_path), url=url), "train")
    message = str(error.value)
    assert message.startswith(f"train.source is not in {tmp_path}, and fetching {url}/train.source failed (")
    assert message.endswith("with --data.dir")
    assert "\n" not in message


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    text(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file/train\.source: cannot be written: .*--data\.dir"):
        load_pairs(TextFiles(dir=str(tmp_path / "file"), url=tmp_path.as_uri()), "train")


def test_columns_of_a_tsv_are_pairs(tmp_path: Path):
    (tmp_path / "train.tsv").write_bytes(b"one\teins\t1\r\n\tzwei\t2\n")
    assert load_pairs(TsvFiles(dir=str(tmp_path)), "train") == Pairs(["one", ""], ["eins", "zwei"])
    assert load_pairs(TsvFiles(dir=str(tmp_path), columns=(2, 0)), "train") == Pairs(["1", "2"], ["one", ""])
    assert load_pairs(TsvFiles(dir=str(tmp_path)), "test") is None


def test_a_tsv_line_with_too_few_columns_is_named(tmp_path: Path):
    (tmp_path / "train.tsv").write_bytes(b"one\teins\ntwo zwei\n")
    with pytest.raises(InputError, match=r"train\.tsv, line 2: 1 tab-separated columns, .* needs 2"):
        load_pairs(TsvFiles(dir=str(tmp_path)), "train")
    with pytest.raises(InputError, match=r"data\.columns=\(-1, 0\)"):
        load_pairs(TsvFiles(dir=str(tmp_path), columns=(-1, 0)), "train")


def test_the_digest_is_of_the_content_alone(tmp_path: Path):
    pairs = load_pairs(text(tmp_path), "train")
    assert pairs.digest == Pairs(("one", "two"), ("eins", "zwei")).digest
    others = [
        Pairs(["one", "two"], ["eins", "drei"]),
        Pairs(["eins", "zwei"], ["one", "two"]),
        Pairs(["onetwo", ""], ["eins", "zwei"]),
        Pairs(["one", "two"], ["eins", "zwei"], ["a", "b"]),
    ]
    assert len({pairs.digest, *(other.digest for other in others)}) == 5
