"""Saves that fail leave what was there as it was; the run stops, or goes on and tries again, as it was told."""

import logging
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from small_checkpoints import KEEP, abstract, files_of, items_of, new_threads, same_bits, save

from transformer_jax.errors import InputError
from transformer_jax.training import manifest
from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.storage import Storage

WHERE = ["at once", "in Orbax's thread", "with the manifest"]  # a save can fail


def fail(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.fixture(params=WHERE)
def full(request, monkeypatch):
    """A context within which saves fail."""
    target = {
        "at once": (Storage, "start_writing"),
        "in Orbax's thread": (Storage, "finish_writing"),
        "with the manifest": (manifest, "write"),
    }[request.param]

    def failing():
        patch = pytest.MonkeyPatch()
        patch.setattr(*target, fail)
        return patch

    return failing


def contents(folder):
    return {path: (folder / path).read_bytes() for path in files_of(folder)}


def save_and_wait(checkpoints):
    checkpoints.save(2, items_of(2), {})
    checkpoints.wait()


def save_and_blunder(checkpoints):
    checkpoints.save(2, items_of(2), {})
    raise ZeroDivisionError


class TestStopping:
    def test_is_one_line_and_what_was_there_is_intact(self, tmp_path, full):
        save(tmp_path, 1)
        before = contents(tmp_path)
        with Checkpoints(tmp_path) as checkpoints:
            patch = full()
            with pytest.raises(InputError, match=r"could not be saved: OSError: .*No space.*; older ones are") as error:
                save_and_wait(checkpoints)
            patch.undo()
        assert "\n" not in str(error.value)
        assert contents(tmp_path) == before

    def test_leaving_the_context_tells_it_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr(manifest, "write", fail)
        with pytest.raises(InputError, match="could not be saved"), Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(2, items_of(2), {})

    def test_another_error_is_not_hidden_by_it(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr(manifest, "write", fail)
        with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path) as checkpoints:
            save_and_blunder(checkpoints)
        assert any("could not be saved" in message for message in caplog.messages)


class TestGoingOn:
    def test_is_one_warning_and_the_next_save_tries_again(self, tmp_path, full, caplog):
        with Checkpoints(tmp_path, on_failure="go_on") as checkpoints:
            checkpoints.save(1, items_of(1), {})
            checkpoints.save(2, items_of(2), {})
            checkpoints.wait()
            patch = full()
            with caplog.at_level(logging.WARNING, logger="transformer_jax"):
                checkpoints.save(3, items_of(3), {})
                assert checkpoints.restore(abstract(items_of(0))).step == 2
            told = [record.message for record in caplog.records if record.name.startswith("transformer_jax")]
            assert len(told) == 1
            assert "No space left on device; older ones are intact; the run goes on" in told[0]
            patch.undo()
            assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
            checkpoints.save(4, items_of(4), {})
            checkpoints.wait()
            assert checkpoints.steps() == [1, 2, 4]
            assert same_bits(checkpoints.restore(abstract(items_of(0))).items, items_of(4))

    def test_the_last_save_of_a_run_must_not_fail(self, tmp_path, full):
        with Checkpoints(tmp_path, on_failure="go_on") as checkpoints:
            patch = full()
            checkpoints.save(1, items_of(1), {})
            with pytest.raises(InputError, match="could not be saved"):
                checkpoints.wait()
            patch.undo()
        assert list(tmp_path.iterdir()) == []

    def test_neither_the_best_nor_the_newest_is_ever_removed(self, tmp_path, full):
        losses = {1: 1.0, 2: 3.0, 3: 2.0, 4: 0.5, 5: 0.4, 6: 5.0}
        with Checkpoints(tmp_path, **KEEP, on_failure="go_on") as checkpoints:
            for step, loss in losses.items():
                patch = full() if step in (4, 5) else pytest.MonkeyPatch()
                checkpoints.save(step, items_of(step), {}, {"loss": loss})
                checkpoints.restore(abstract(items_of(0)))  # waits
                patch.undo()
                if step in (3, 4, 5):
                    assert checkpoints.steps() == [1, 2, 3]
            assert checkpoints.steps() == [1, 3, 6]
            assert checkpoints.best_step() == 1

    def test_no_thread_stays(self, tmp_path, full):
        save(tmp_path, 1)
        before = set(threading.enumerate())
        with Checkpoints(tmp_path, on_failure="go_on") as checkpoints:
            patch = full()
            checkpoints.save(2, items_of(2), {})
            checkpoints.restore(abstract(items_of(0)))
            patch.undo()
        assert not new_threads(before)


RUN = """
import ctypes, os, resource, signal, sys
from pathlib import Path

def bind_root():
    "Root is bound by permissions only without the capability to pass over them."
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, data)
    data[0] &= ~(1 << 1 | 1 << 2)  # DAC_OVERRIDE and DAC_READ_SEARCH, of the effective ones
    assert libc.capset(header, data) == 0

kind, folder = sys.argv[1], Path(sys.argv[2])
if kind == "read-only":
    bind_root()  # before any thread starts
import jax
from transformer_jax.errors import InputError
from transformer_jax.training.checkpoints import Checkpoints

items = {"parameters": {"kernel": jax.random.normal(jax.random.key(0), 2**18)}}  # 1 MiB that nothing compresses
with Checkpoints(folder, on_failure=sys.argv[3]) as checkpoints:
    if kind == "quota":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    try:
        for step in (2, 3):
            checkpoints.save(step, items, {})
        print("went on")
        checkpoints.wait()
    except InputError as error:
        print(error)
"""


def run(kind, folder, on_failure):
    """The lines of a process of its own that saves steps 2 and 3 where it cannot."""
    command = [sys.executable, "-c", textwrap.dedent(RUN), kind, str(folder), on_failure]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return process.stdout.splitlines()


@pytest.fixture
def unwritable(tmp_path, request):
    """A folder with a checkpoint of step 1, to which nothing can be added."""
    folder = tmp_path / "run"
    save(folder, 1)
    if request.param == "read-only":
        folder.chmod(0o555)
    yield request.param, folder
    folder.chmod(0o755)


@pytest.mark.parametrize("on_failure", ["stop", "go_on"])
@pytest.mark.parametrize("unwritable", ["quota", "read-only"], indirect=True)
def test_a_disk_that_cannot_be_written_to(unwritable, on_failure):
    kind, folder = unwritable
    before = contents(folder)
    lines = run(kind, folder, on_failure)
    assert lines[:-1] == (["went on"] if on_failure == "go_on" else [])
    assert "could not be saved" in lines[-1]
    assert contents(folder) == before
    with Checkpoints(folder) as checkpoints:
        assert same_bits(checkpoints.restore(abstract(items_of(0))).items, items_of(1))


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 1 MiB, mounted in namespaces of this process alone; where that is forbidden, a quota."""
    folder = tmp_path / "run"
    save(folder, 1)
    before = contents(folder)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    script = f"""
        mount -t tmpfs -o size=1m tmpfs {mounted} && cp -r {folder}/. {mounted} || exit 77
        {sys.executable} -c "$RUN" full {mounted} go_on || exit 1
        cp -r {mounted}/. {tmp_path}/after
    """
    process = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env={**os.environ, "RUN": textwrap.dedent(RUN)},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode == 77 or process.stderr.startswith("unshare"):
        lines, after = run("quota", folder, "go_on"), folder
    else:
        assert process.returncode == 0, process.stderr
        lines, after = process.stdout.splitlines(), tmp_path / "after"
    assert lines[0] == "went on"
    assert "could not be saved" in lines[1]
    assert contents(after) == before
