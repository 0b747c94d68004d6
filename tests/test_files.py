"""A file is written whole or not at all."""

import os

import pytest

from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically


def test_a_write_that_fails_is_one_line_and_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"file: cannot be written: No space left on device; make room"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_new_content_replaces_a_longer_one(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"a longer text")
    write_atomically(path, "ä")
    assert path.read_bytes() == "ä".encode()
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(InputError, match="No such file or directory"):
        write_atomically(tmp_path / "nowhere" / "file", "text")
