"""transformer-jax VERB: picks the verb, and turns what goes wrong into one line and an exit code."""

import contextlib
import difflib
import gc
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from transformer_jax.cli.arguments import PROGRAM
from transformer_jax.errors import InputError, explain

VERBS = {
    "train": "train the experiment of a file, or go on where its run folder stands",
    "sweep": "train an experiment with all combinations of several values of its fields",
    "prepare": "tokenise the training data of an experiment into shards, for sets larger than memory",
    "plan": "memory, transfers and operations of a training step, on devices that need not be there",
    "translate": "translate lines from standard input to standard output",
    "generate": "go on with the lines of standard input, with a model without an encoder",
    "classify": "the class of each line of standard input",
    "score": "the log-probability of given translations",
    "import": "make a run folder of a public checkpoint",
    "export": "write a run's model for others: as StableHLO for jax alone, or as transformers and CTranslate2 open it",
    "evaluate": "score a run on a split of its experiment, or on two files",
    "verify": "check every byte of a run's checkpoints",
    "reproduce": "train a run again from its folder, and compare to the bit",
    "average": "average checkpoints of one or more runs into a new run folder",
    "attend": "draw what every head of a layer attends to in a sentence and its translation",
}

MODULES = {"import": "importing"}  # of verbs that are words of Python

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb with its arguments, those of the process by default; returns the exit code."""
    if sys.stderr is None:  # closed: what goes there goes nowhere, and not to the output
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    _set_up_logging()
    if arguments is None:
        set_up_process()
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()  # here, where a broken pipe is still handled
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone. Python flushes again as it ends, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise  # a mistake of ours: the traceback is needed
        line, code = explained
        print(line, file=sys.stderr)
        return code


def _run(arguments: Sequence[str]) -> int:
    if not arguments:
        raise InputError(f"no verb given; one of {', '.join(VERBS)}; {PROGRAM} --help says more")
    verb, *others = arguments
    if verb in ("-h", "--help"):
        print(_help())
        return 0
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(VERBS)}"
        raise InputError(f"no such verb: {verb}; {hint}")
    try:
        code: int = importlib.import_module(f"transformer_jax.cli.{MODULES.get(verb, verb)}").main(others)
    except SystemExit as stop:  # after --help
        return int(stop.code or 0)
    return code


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {summary}" for verb, summary in VERBS.items()]
    return "\n".join(
        [f"usage: {PROGRAM} VERB ...", "", *lines, "", f"{PROGRAM} VERB --help lists the options of a verb."]
    )


def set_up_process() -> None:
    """Sets up a process that does nothing but a verb, before jax is imported: for a quick start."""
    # Tracing makes very many objects that stay: looking for garbage among them is a tenth of the time until a step.
    gc.set_threshold(50_000, 20, 20)
    _keep_compiled()


def _keep_compiled() -> None:
    """Lets jax keep compiled programs between processes, where JAX_COMPILATION_CACHE_DIR does not say otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(home, "transformer_jax", "compiled")
    with contextlib.suppress(OSError):  # a machine without a place for it compiles again
        os.makedirs(folder, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder)
    # Translation has many programs, of which most take less than the second from which on jax keeps one.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def _set_up_logging() -> None:
    """Shows this package's warnings alone: what a library logs as an error is raised too, and told in one line."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    handler.addFilter(lambda record: record.name.startswith("transformer_jax"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _show_unraisable


def _show_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Shows an error that could not be raised where it happened.

    Not the hundreds of them after a save that failed: for each array TensorStore still reports to the event loop of
    Orbax, which is closed by then. The failure itself is raised.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.exit(main())
