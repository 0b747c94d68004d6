"""What can go wrong, and the exit codes that tell it; the command line prints each as one line, without a traceback.

0 is success; a run that a signal stopped exits with 128 plus the signal's number, as shells tell it.
"""

FAILED_CHECK = 1  # a check was made and did not hold: damage found, a run not reproduced, a plan that does not fit
MISTAKE = 2  # bad input
DIVERGED = 3  # the run went back to its checkpoints as often as it may
PEER_LOST = 75  # another process of the run has died: start all of them again (EX_TEMPFAIL of sysexits.h)


class InputError(ValueError):
    """Bad input: one line that names the value, the place (file, line, flag) and what would be right."""


class DivergenceError(RuntimeError):
    """Training that went bad again and again: one line that says at which steps, and where the report is."""
