"""One process at a time is in a run folder, and frees it by its death."""

import os
import socket
import subprocess
import sys

from plain import experiment, one_line

from transformer_jax import runs
from transformer_jax.config import Adam

HOLD = """
import sys, time
from transformer_jax import runs
with runs.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


class TestLock:
    def test_a_second_holder_is_refused_until_the_first_is_done(self, tmp_path):
        with (
            runs.lock(tmp_path / "run"),
            one_line(tmp_path / "run", f"process {os.getpid()} "),
            runs.lock(tmp_path / "run"),
        ):
            pass
        with runs.lock(tmp_path / "run"):
            pass

    def test_another_process_is_named_and_its_death_frees_the_folder(self, tmp_path):
        other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
        with other:
            try:
                assert other.stdout.readline() == b"held\n"
                with one_line(tmp_path, f"process {other.pid} "), runs.lock(tmp_path):
                    pass
            finally:
                other.kill()
        with runs.lock(tmp_path):
            pass

    def test_a_locked_folder_is_still_empty_for_a_new_run(self, tmp_path):
        with runs.lock(tmp_path):
            runs.start(tmp_path, experiment(optimizer=Adam()))
        assert runs.open_run(tmp_path) == experiment()

    def test_who_is_in_a_folder(self, tmp_path):
        holder, here = tmp_path / ".lock.holder", socket.gethostname()
        assert not runs.is_in_use(tmp_path)
        with runs.lock(tmp_path):
            assert runs.is_in_use(tmp_path)
        assert not runs.is_in_use(tmp_path)
        with subprocess.Popen(["true"]) as gone:
            gone.wait()
        for who, expected in (
            (f"process {gone.pid} on {here}", False),  # it was killed
            (f"process {gone.pid} on another", True),
            (f"process {os.getppid()} on {here}", True),
            ("", False),
        ):
            holder.write_text(who)
            assert runs.is_in_use(tmp_path) is expected
