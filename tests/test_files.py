"""A file is written whole or not at all."""

import os

import pytest

from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically, written_whole


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


def test_its_folder_is_made(tmp_path):
    write_atomically(tmp_path / "new" / "folder" / "file", "text")
    assert (tmp_path / "new" / "folder" / "file").read_text() == "text"


def test_a_file_in_the_place_of_its_folder_is_one_line_with_the_advice(tmp_path):
    (tmp_path / "taken").touch()
    with (
        pytest.raises(InputError, match=r"taken/file: cannot be written: Not a directory; choose another --output$"),
        written_whole(tmp_path / "taken" / "file", "choose another --output"),
    ):
        raise AssertionError("there is nowhere to write to")


def test_two_that_write_the_same_file_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with written_whole(path) as one, written_whole(path) as other:
        one.write_text("one")
        other.write_text("other")
        assert not path.exists()
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["file"]


def test_what_fails_otherwise_leaves_nothing_and_stays_what_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "file") as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert os.listdir(tmp_path) == []


def test_the_file_may_be_read_by_whom_the_mask_allows(tmp_path):
    write_atomically(tmp_path / "ours", "text")
    (tmp_path / "usual").write_text("text")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode
