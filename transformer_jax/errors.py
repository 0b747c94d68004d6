"""What can go wrong, and the exit codes that tell it; the command line prints each as one line, without a traceback.

0 is success; a run that a signal stopped exits with 128 plus the signal's number, as shells tell it.
"""

import errno

FAILED_CHECK = 1  # a check was made and did not hold: damage found, a run not reproduced, a plan that does not fit
MISTAKE = 2  # bad input
DIVERGED = 3  # the run went back to its checkpoints as often as it may
PEER_LOST = 75  # another process of the run has died: start all of them again (EX_TEMPFAIL of sysexits.h)


class InputError(ValueError):
    """Bad input: one line that names the value, the place (file, line, flag) and what would be right."""


class DivergenceError(RuntimeError):
    """Training that went bad again and again: one line that says at which steps, and where the report is."""


_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # full, read-only, not ours


def explain(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code of an error that the user can mend; None for one that needs its traceback."""
    message = " ".join(str(error).split())
    if isinstance(error, InputError):
        return f"error: {message}", MISTAKE
    if isinstance(error, DivergenceError):
        return f"error: {message}", DIVERGED
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_A_DISK):
        place = "a file" if error.filename is None else error.filename
        return f"error: {place}: {error.strerror}; make room or mend the permissions", MISTAKE
    return None


def first_line(error: Exception) -> str:
    """The first line of what an error says, and its kind where it is not one of ours."""
    text = str(error).strip().splitlines()
    if isinstance(error, InputError):
        return text[0]
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
