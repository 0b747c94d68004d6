"""The one exception for a user's mistake: the command line prints it as one line, without a traceback."""


class InputError(ValueError):
    """Bad input: one line that names the value, the place (file, line, flag) and what would be right."""
