"""The first signal is a flag, the second the end; the handlers from before come back."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from transformer_jax.training.interruption import Interruption, exit_code

EACH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])

# Half a minute in C code that lets no Python handler run, as a compilation does.
BUSY = """
import hashlib
from transformer_jax.training.interruption import Interruption
with Interruption() as interruption:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 50_000_000)
"""

POLLING = """
import sys, time
from transformer_jax.training.interruption import Interruption, exit_code
with Interruption() as interruption:
    print("ready", flush=True)
    while interruption.signal is None:
        time.sleep(0.01)
print("saved", flush=True)
sys.exit(exit_code(interruption.signal))
"""


def started(program):
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def wait_for(interruption):
    limit = time.monotonic() + 10
    while interruption.signal is None and time.monotonic() < limit:
        time.sleep(0.001)


@EACH
def test_a_signal_sets_the_flag_and_says_so_in_one_line(number, capfd):
    with Interruption() as interruption:
        assert interruption.signal is None
        os.kill(os.getpid(), number)
        wait_for(interruption)
    assert interruption.signal is number
    assert exit_code(number) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}[number]
    assert capfd.readouterr().err == f"\n{number.name}: saving, then exiting; once more to exit at once\n"


def test_without_a_signal_the_code_is_that_of_success():
    assert exit_code(0) == 0


@EACH
def test_handlers_from_before_come_back(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append(number))
    try:
        with pytest.raises(ZeroDivisionError), Interruption():
            1 / 0  # noqa: B018
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    finally:
        signal.signal(number, before)
    assert seen == [number]
    assert signal.set_wakeup_fd(-1) == -1


def test_other_signals_are_not_its_business():
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda *_: seen.append("user"))
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.05)
            assert interruption.signal is None
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == ["user"]


def test_outside_the_main_thread_it_is_without_effect():
    before = signal.getsignal(signal.SIGINT)
    inside = []

    def work():
        with Interruption():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


def test_a_loop_that_polls_ends_with_the_code_of_the_signal():
    process = started(POLLING)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert out == b"saved\n"
    assert b"SIGTERM" in err
    assert process.returncode == 143


def test_the_second_signal_ends_a_process_that_is_busy_in_c_code():
    process = started(BUSY)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == b"\n"
    assert process.stderr.readline().startswith(b"SIGINT")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert time.monotonic() - began < 5
