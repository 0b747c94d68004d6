"""Lines as they arrive."""

import gzip
import io
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_jax.errors import InputError
from transformer_jax.translation.lines import all_lines, arriving, open_lines


def read(content, most=1000, invalid="error"):
    return [line for lines in arriving(io.BytesIO(content), "it", most, invalid) for line in lines]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb", ["a", "", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\rb\n", ["a\rb"]),
        ("\ufeffa\n\ufeffb\n".encode(), ["a", "\ufeffb"]),
        ("\ufeff".encode(), [""]),
        ("a\u2028b\x85c\x0bd\x0ce\x1cf\x00g\n".encode(), ["a\u2028b\x85c\x0bd\x0ce\x1cf\x00g"]),
        (b"x" * (3 << 20) + b"\ny", ["x" * (3 << 20), "y"]),
    ],
)
def test_only_line_feeds_end_a_line(content, lines):
    assert read(content) == lines


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 3))
def test_bytes_that_are_no_utf8_are_replaced_or_named(content, most):
    ends = content.count(b"\n") + (not content.endswith(b"\n") and content != b"")
    assert len(read(content, most, "replace")) == ends
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        with pytest.raises(InputError, match=f"it, line {line}, byte "):
            read(content, most)
    else:
        assert read(content, most) == read(content, most, "replace")


def test_what_comes_before_invalid_bytes_comes_first():
    lines = arriving(io.BytesIO(b"a\nb\n\xff\nc\n"), "it", 1000)
    assert next(lines) == ["a", "b"]
    with pytest.raises(InputError, match="it, line 3, byte 1: invalid UTF-8"):
        next(lines)


def test_no_more_at_once_than_asked_for():
    assert [len(lines) for lines in arriving(io.BytesIO(b"a\n" * 7), "it", 3)] == [3, 3, 1]


def test_lines_come_as_they_are_written():
    """What has been written to a pipe is given before more of it comes."""
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as pipe:
        lines = arriving(stream, "it", 1000)
        pipe.write(b"a\nb\nc")
        assert next(lines) == ["a", "b"]
        pipe.write(b"d\n")
        assert next(lines) == ["cd"]
        closing = threading.Timer(0.05, pipe.close)
        closing.start()
        assert list(lines) == []
        closing.join()


def test_files(tmp_path):
    plain, packed, broken = tmp_path / "a.txt", tmp_path / "a.gz", tmp_path / "b.gz"
    plain.write_bytes(b"a\n\nb")
    packed.write_bytes(gzip.compress(b"a\n\nb"))
    broken.write_bytes(gzip.compress(b"a\n\nb" * 1000)[:-9])
    assert all_lines(plain) == all_lines(packed) == ["a", "", "b"]
    with pytest.raises(InputError, match=r"b\.gz: broken gzip"):
        all_lines(broken)
    with pytest.raises(InputError, match=r"none\.txt: cannot be read: No such file"):
        open_lines(tmp_path / "none.txt")
    plain.write_bytes(b"a\n\xff")
    with pytest.raises(InputError, match=r"a.txt, line 2, byte 1: invalid UTF-8"):
        all_lines(plain)
