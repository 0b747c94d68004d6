"""Arguments into the call of a verb's function, by tyro; mistakes in them into one line."""

import contextlib
import functools
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ParamSpec, TypeAlias

import tyro

from transformer_jax.config import Experiment
from transformer_jax.errors import InputError
from transformer_jax.runs import load_experiment, open_run

PROGRAM = "transformer-jax"

Run: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # a run folder

_Parameters = ParamSpec("_Parameters")


def call(name: str, command: Callable[..., int], arguments: Sequence[str]) -> int:
    """Calls a verb's function with the values of the arguments, its help being its docstring; returns the exit code.

    Raises:
        InputError: on arguments that are missing, unknown, or refused by a config.
        SystemExit: with code 0, after `--help`.
    """
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            bound = tyro.cli(
                _bind(command), prog=f"{PROGRAM} {name}", args=arguments, config=(tyro.conf.AvoidSubcommands,)
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise InputError(_one_line(messages.getvalue())) from None
    return bound()


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether help is asked for in place of the experiment file, whose fields are not known yet."""
    return bool(arguments) and arguments[0].startswith("-") and bool({"-h", "--help"} & set(arguments))


def file_first(arguments: Sequence[str], usage: str) -> tuple[Experiment, Sequence[str]]:
    """The experiment of the file that the arguments begin with, and the rest of them.

    Raises:
        InputError: when no file comes first, or it has no experiment.
    """
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"the experiment file comes first: {PROGRAM} {usage}")
    return load_experiment(arguments[0]), arguments[1:]


def run_first(arguments: Sequence[str], usage: str) -> tuple[Path, Experiment, Sequence[str]]:
    """The run folder that the arguments begin with, its experiment, and the rest of them.

    Raises:
        InputError: when no folder comes first, or it is no run.
    """
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"the run folder comes first: {PROGRAM} {usage}")
    return Path(arguments[0]), open_run(arguments[0]), arguments[1:]


def _bind(command: Callable[_Parameters, int]) -> Callable[_Parameters, Callable[[], int]]:
    """A function that takes what `command` takes and returns its call, still to be made, outside of the parser."""

    @functools.wraps(command)
    def bound(*args: _Parameters.args, **flags: _Parameters.kwargs) -> Callable[[], int]:
        return functools.partial(command, *args, **flags)

    return bound


def _one_line(box: str) -> str:
    """The text of the box in which tyro shows a mistake, without its title and its pointer to `--help`."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [row.strip(" │|") for row in plain.splitlines()[1:]]
    sections = re.split(r"\n[─-]{3,}\n", "\n".join(rows))
    texts = [" ".join(re.sub("[╭╮╰╯─]", "", section).split()) for section in sections]
    kept = [text for text in texts if text and not text.startswith("For full helptext")]
    return "; ".join(kept).removeprefix("Error parsing ")
