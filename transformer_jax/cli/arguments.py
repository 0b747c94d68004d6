"""Arguments into the call of a verb's function, by tyro; mistakes in them into one line."""

import contextlib
import functools
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ParamSpec, TypeAlias, TypeVar

import tyro

from transformer_jax.config import Experiment
from transformer_jax.errors import InputError
from transformer_jax.runs import load_experiment, open_run

PROGRAM = "transformer-jax"

Run: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # a run folder

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def call(name: str, command: Callable[..., int], arguments: Sequence[str]) -> int:
    """Calls a verb's function with the values of the arguments, its help being its docstring; returns the exit code.

    Raises:
        InputError: on arguments that are missing, unknown, or refused by a config.
        SystemExit: with code 0, after `--help`.
    """
    return parse(name, command, arguments)()


def parse(name: str, command: Callable[..., _Result], arguments: Sequence[str]) -> Callable[[], _Result]:
    """The call of a function with the values of the arguments, still to be made; raises as `call`."""
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            bound: Callable[[], _Result] = tyro.cli(
                _bind(command), prog=f"{PROGRAM} {name}", args=arguments, config=(tyro.conf.AvoidSubcommands,)
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise InputError(_one_line(messages.getvalue())) from None
    return bound


def over_file(
    usage: str, about: str | None, verb: Callable[[Experiment], Callable[..., int]], arguments: Sequence[str]
) -> int:
    """Runs a verb whose first argument is an experiment file, the defaults of all others being that experiment's.

    Args:
        usage: the verb and what comes behind it, FILE first.
        about: what --help shows in place of a file, when defaults are not known yet.
        verb: the verb's function for an experiment.
        arguments: of the command line.

    Raises:
        InputError: when no file comes first, or it has no experiment; and as `call`.
    """
    return _over("the experiment file", usage, about, lambda first: verb(load_experiment(first)), arguments)


def over_run(
    usage: str, about: str | None, verb: Callable[[Path, Experiment], Callable[..., int]], arguments: Sequence[str]
) -> int:
    """Runs a verb whose first argument is a run folder, the defaults of all others being its experiment's.

    Args:
        usage: the verb and what comes behind it, RUN first.
        about: what --help shows in place of a folder, when defaults are not known yet.
        verb: the verb's function for a run.
        arguments: of the command line.

    Raises:
        InputError: when no folder comes first, or it is no run; and as `call`.
    """
    return _over("the run folder", usage, about, lambda first: verb(Path(first), open_run(first)), arguments)


def has_first(what: str, usage: str, about: str | None, arguments: Sequence[str]) -> bool:
    """Whether `what` comes first, as it must; where help is asked for in its place, prints `about` instead.

    Raises:
        InputError: when neither does.
    """
    if arguments and not arguments[0].startswith("-"):
        return True
    if {"-h", "--help"} & set(arguments):
        print(about)
        return False
    raise InputError(f"{what} comes first: {PROGRAM} {usage}")


def _over(
    what: str, usage: str, about: str | None, bound: Callable[[str], Callable[..., int]], arguments: Sequence[str]
) -> int:
    if not has_first(what, usage, about, arguments):
        return 0
    verb, first, *_ = usage.split()
    return call(f"{verb} {first}", bound(arguments[0]), arguments[1:])


def _bind(command: Callable[_Parameters, _Result]) -> Callable[_Parameters, Callable[[], _Result]]:
    """A function that takes what `command` takes and returns its call, still to be made, outside of the parser."""

    @functools.wraps(command)
    def bound(*args: _Parameters.args, **flags: _Parameters.kwargs) -> Callable[[], _Result]:
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
