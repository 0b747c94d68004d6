"""An experiment out of a Python file."""

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

from transformer_jax.config import Experiment
from transformer_jax.errors import InputError

_PACKAGE = "experiments"


def load_experiment(path: str | Path) -> Experiment:
    """The experiment of a Python file with `get_config() -> Experiment`, from any working directory.

    The file's folder is loaded as the package `experiments`, so that a file can build on its neighbours
    (`from experiments import base`). Modules of that name that were there before are back afterwards.

    Args:
        path: the file; with a colon and a word behind it, get_config is given that word.

    Raises:
        InputError: when the file is missing, is no Python, has no get_config that returns an Experiment, or raises; an
            error raised in the folder's files is told with its file and line; and on a word that get_config does not
            take.
    """
    name, colon, word = str(path).rpartition(":")
    chosen = bool(colon) and name.endswith(".py")
    file = Path(name if chosen else path)
    _check_file(file)
    folder = Path(os.path.abspath(file)).parent
    with _experiments_package(folder):
        try:
            experiment = _run_get_config(file, folder, word if chosen else None)
        except SyntaxError as error:
            where = _shown(file, folder, error.filename or str(file))
            raise InputError(f"{where}:{error.lineno or 1}: syntax error: {error.msg}") from None
        except Exception as error:
            raise InputError(f"{_blame(file, folder, error)}: {_one_line(error)}") from error
    if not isinstance(experiment, Experiment):
        raise InputError(f"{file}: get_config() must return an Experiment, not {type(experiment).__name__}")
    return experiment


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise InputError(f"{file}: is a folder; an experiment is a .py file in it")
    if not file.exists():
        neighbours = sorted(near.name for near in file.parent.glob("*.py")) if file.parent.is_dir() else []
        close = difflib.get_close_matches(file.name, neighbours, 1) or difflib.get_close_matches(
            f"{file.name}.py", neighbours, 1
        )
        hint = f"; did you mean {file.parent / close[0]}?" if close else ""
        raise InputError(f"{file}: no such experiment file{hint}")
    if file.suffix != ".py":
        raise InputError(f"{file}: is no .py file; an experiment is a Python file with get_config() -> Experiment")


@contextlib.contextmanager
def _experiments_package(folder: Path) -> Iterator[None]:
    """Within the context, the package `experiments` is this folder."""
    before = _take_modules()
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[_PACKAGE] = package
    importlib.invalidate_caches()  # a file written a moment ago is found too
    try:
        yield
    finally:
        _take_modules()
        sys.modules.update(before)


def _take_modules() -> dict[str, types.ModuleType]:
    names = [name for name in sys.modules if name == _PACKAGE or name.startswith(f"{_PACKAGE}.")]
    return {name: sys.modules.pop(name) for name in names}


def _run_get_config(file: Path, folder: Path, word: str | None) -> object:
    name = f"{_PACKAGE}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, folder / file.name)
    if spec is None or spec.loader is None:
        raise ImportError("cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise InputError("has no function get_config() -> Experiment")
    return get_config() if word is None else get_config(_checked(word, get_config))


def _checked(word: str, get_config: Callable[..., object]) -> str:
    """The word, which is one of those that get_config takes, as far as the type of its argument lists them."""
    arguments = [*inspect.signature(get_config, eval_str=True).parameters.values()]
    if not arguments:
        raise InputError(f"get_config() takes no word; leave out :{word}")
    words = typing.get_args(arguments[0].annotation)
    if words and word not in words:
        raise InputError(f":{word}: get_config() takes {', '.join(f':{known}' for known in words)}")
    return word


def _blame(file: Path, folder: Path, error: Exception) -> str:
    """FILE:LINE of the deepest line of the user's folder in the error's traceback; FILE when it has none."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if Path(frame.filename).parent == folder]
    return f"{_shown(file, folder, lines[-1].filename)}:{lines[-1].lineno}" if lines else str(file)


def _shown(file: Path, folder: Path, filename: str) -> str:
    """A file of the folder, told the way the user told the experiment file."""
    other = Path(filename)
    return str(file.parent / other.name) if other.parent == folder else filename


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, InputError) else f"{type(error).__name__}: {message}"
