"""SIGINT, SIGTERM and SIGUSR1 as a flag: the first asks the run to save and exit, the second ends it at once."""

import contextlib
import os
import signal
import threading
import types
from typing import Any

_ASKED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is what SLURM sends before the time is over
_STOPPED = 0  # no signal has this number


class Interruption:
    """Within the context, `signal` holds the first of these signals; a loop polls it between steps.

    The numbers of arriving signals are read by a thread, because Python's own handlers wait until the main thread is
    back from a compilation or a save: the answer to Ctrl-C, and the second one's exit, should not. Outside the main
    thread, where Python installs no handlers, it stays without effect. With many processes each has its own flag; they
    have to agree on a step before they act on it.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            return self
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        watcher = threading.Thread(target=self._watch, args=(reader,), daemon=True)
        watcher.start()
        self._undo.callback(os.close, reader)
        self._undo.callback(watcher.join)
        self._undo.callback(os.close, writer)
        self._undo.callback(os.write, writer, bytes([_STOPPED]))
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer))
        for number in _ASKED_BY:
            self._undo.callback(signal.signal, number, signal.signal(number, _ignore) or signal.SIG_DFL)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._undo.close()

    def _watch(self, reader: int) -> None:
        while (number := os.read(reader, 1)[0]) != _STOPPED:
            if number not in _ASKED_BY:  # another handler's signal
                continue
            if self.signal is not None:
                os._exit(128 + number)
            self.signal = signal.Signals(number)
            _say(f"{self.signal.name}: saving, then exiting; once more to exit at once")


def exit_code(number: int) -> int:
    """What a process that this signal stopped exits with: 128 plus its number, as a shell tells it; 0 for no signal."""
    return 128 + number if number else 0


def _ignore(number: int, frame: types.FrameType | None) -> None:
    """Python tells the wake-up pipe only of signals that have a handler."""


def _say(line: str) -> None:
    # Not through sys.stderr, whose buffer the main thread may be in the middle of.
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
